"""Search space of LGM with an AC-GAN, ``trainables/lgm_acgan.py``.

Ranges are those of the values that its authors tried, widened to where a loss term fades out or
takes over. The adversarial coefficients stay at 1: under Adam only ratios of terms matter, so they
are the unit of the others.
"""

from search_spaces._common import GAN_DEFAULT, coefficient, gan_loop, gan_rehearsal, shapes

# The authors' best run (their version 3: 19.1 % on CUB). Their batch of 256 and widths of 512 to
# 1024 were for 512-d features of 200 classes; shapes keep the method's defaults.
DEFAULT = GAN_DEFAULT | {
    "generator_classification": 0.1,
    "critic_classification": 1.0,
    "use_prototypes": False,
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
