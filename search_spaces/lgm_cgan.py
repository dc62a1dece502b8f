"""Search space of LGM with a conditional GAN, ``trainables/lgm_cgan.py``.

Ranges are those of the values that its authors tried, widened to where a loss term fades out or
takes over. The adversarial coefficients stay at 1: under Adam only ratios of terms matter, so they
are the unit of the others.
"""

from search_spaces._common import GAN_DEFAULT, coefficient, gan_loop, gan_rehearsal, shapes

# The authors never ran this in a continual loop. The loop is that of their best AC-GAN run, the
# prototypes (weight 5) those of their best joint run of the cGAN (CAS of 92.5 % on MNIST).
DEFAULT = GAN_DEFAULT | {"use_prototypes": True, "generator_prototype": 5.0}


def space(trial, search_shapes: bool = False, attributes: bool = False) -> dict:
    """Suggest one configuration of LGM-cGAN.

    Args:
        attributes: whether the generator is told the classes' attributes.
    """
    config = gan_loop(trial)
    config |= coefficient(trial, "gradient_penalty", 0.1, 30.0)
    config |= gan_rehearsal(trial, config["order"], attributes)
    if search_shapes:
        config["condition"] = trial.suggest_categorical(
            "condition", ["concatenation", "projection"]
        )
        nets = "generator", "critic", "classifier"
        config |= shapes(trial, nets, ("batch_size", "replay_batch_size"))
    return config
