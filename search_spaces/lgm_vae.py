"""Search space of LGM with a VAE, ``trainables/lgm_vae.py``.

Ranges are those of the values that its authors tried, widened to where a loss term fades out or
takes over. The reconstruction's weight stays at 1: it is the unit of the other terms.
"""

from search_spaces._common import lgm_vae, shapes

# The authors' best run (33.1 % on CUB): about 250 updates of each player a task, the classifier's
# first. Their 0.01 of a divergence summed over z is 0.01 Z of its mean. Their batches of 128 to 512
# and widths of 512 were for 512-d features of 200 classes; shapes keep the method's defaults.
DEFAULT = {
    "order": "classifier_first",
    "vae_steps": 250,
    "classifier_steps": 250,
    "vae_lr": 1e-3,
    "vae_beta1": 0.0,
    "vae_beta2": 0.9,
    "classifier_lr": 1e-3,
    "classifier_beta1": 0.0,
    "divergence": 0.32,
    "encoder_rehearsal": 1.0,
    "decoder_rehearsal": 1.0,
    "classifier_rehearsal": 1.0,
    "learn_prior": False,
    "label_smoothing": 0.0,
    "reset_classifier": False,
}


def space(trial, search_shapes: bool = False) -> dict:
    """Suggest one configuration of LGM-VAE."""
    config = lgm_vae(trial)
    if search_shapes:
        config |= shapes(trial, ("vae", "classifier"), ("batch_size", "replay_batch_size"))
    return config
