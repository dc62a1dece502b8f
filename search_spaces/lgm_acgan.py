"""Search space of LGM with an AC-GAN, ``trainables/lgm_acgan.py``.

Ranges are those of the values that its authors tried, widened to where a loss term fades out or
takes over. The adversarial coefficients stay at 1: under Adam only ratios of terms matter, so they
are the unit of the others.
"""

from search_spaces._common import coefficient, gan_loop, gan_rehearsal, shapes

# The authors' best run (their version 3: 19.1 % on CUB), with its 300 critic and 300 classifier
# updates a task. Their batch of 256 and widths of 512 to 1024 were for 512-d features of 200
# classes; shapes keep the method's defaults.
DEFAULT = {
    "order": "gan_first",
    "gan_steps": 300,
    "classifier_steps": 300,
    "critic_steps": 5,
    "generator_lr": 1e-3,
    "generator_beta1": 0.0,
    "generator_beta2": 0.9,
    "critic_lr": 1e-3,
    "critic_beta1": 0.0,
    "critic_beta2": 0.9,
    "classifier_lr": 1e-3,
    "classifier_beta1": 0.0,
    "generator_classification": 0.1,
    "critic_classification": 1.0,
    "gradient_penalty": 10.0,
    "use_prototypes": False,
    "generator_rehearsal": 30.0,
    "classifier_rehearsal": 1.0,
    "replay_seen": False,
    "label_smoothing": 0.0,
    "reset_critic": False,
    "reset_classifier": False,
}


def space(trial, search_shapes: bool = False, attributes: bool = False) -> dict:
    """Suggest one configuration of LGM-AC-GAN.

    Args:
        attributes: whether the generator is told the classes' attributes.
    """
    config = gan_loop(trial)
    config |= coefficient(trial, "generator_classification", 0.01, 10.0)
    config |= coefficient(trial, "critic_classification", 0.01, 10.0)
    config |= coefficient(trial, "gradient_penalty", 0.1, 30.0)
    config |= gan_rehearsal(trial, config["order"], attributes)
    if search_shapes:
        nets = "generator", "critic", "classifier"
        config |= shapes(trial, nets, ("batch_size", "replay_batch_size"))
    return config
