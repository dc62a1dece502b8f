"""Search space of LGM with a VAE, ``trainables/lgm_vae.py``.

Ranges are those of the values that its authors tried, widened to where a loss term fades out or
takes over. The reconstruction's weight stays at 1: it is the unit of the other terms.
"""

from search_spaces._common import adam, coefficient, flag, shapes, vae_terms

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
    """Suggest one configuration of LGM-VAE.

    ``replay_seen`` exists only where the autoencoder meets a task before the classifier does.
    """
    config = {
        "order": trial.suggest_categorical(
            "order", ["vae_first", "classifier_first", "interleaved"]
        ),
        # A task's budget, up to 8/5 of the authors' own.
        "vae_steps": trial.suggest_int("vae_steps", 100, 400),
        "classifier_steps": trial.suggest_int("classifier_steps", 100, 400),
    }
    config |= adam(trial, "vae") | adam(trial, "classifier")
    config["vae_beta2"] = trial.suggest_categorical("vae_beta2", [0.9, 0.999])
    config |= vae_terms(trial)
    config |= coefficient(trial, "classifier_rehearsal", 0.1, 10.0)
    if config["order"] != "classifier_first":
        config |= flag(trial, "replay_seen")
    config["label_smoothing"] = trial.suggest_float("label_smoothing", 0.0, 0.2)
    config |= flag(trial, "reset_classifier")
    if search_shapes:
        config |= shapes(trial, ("vae", "classifier"), ("batch_size", "replay_batch_size"))
    return config
