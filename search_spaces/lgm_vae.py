"""Search space of LGM with a VAE, ``trainables/lgm_vae.py``.

Ranges are those of the values that its authors tried, widened to where a loss term fades out or
takes over. The reconstruction's weight stays at 1: it is the unit of the other terms.
"""

from search_spaces._common import adam, perceptron

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

    def coefficient(name, low, high):
        config[name] = trial.suggest_float(name, low, high, log=True)

    coefficient("divergence", 1e-4, 1.0)
    coefficient("encoder_rehearsal", 0.01, 100.0)
    coefficient("decoder_rehearsal", 0.01, 100.0)
    coefficient("classifier_rehearsal", 0.1, 10.0)
    config["learn_prior"] = trial.suggest_categorical("learn_prior", [True, False])
    if config["order"] != "classifier_first":
        config["replay_seen"] = trial.suggest_categorical("replay_seen", [True, False])

    config["label_smoothing"] = trial.suggest_float("label_smoothing", 0.0, 0.2)
    config["reset_classifier"] = trial.suggest_categorical("reset_classifier", [True, False])

    if search_shapes:
        config["latent"] = trial.suggest_categorical("latent", [16, 32, 64, 128])
        for net in ("vae", "classifier"):
            config |= perceptron(trial, net)
        for size in ("batch_size", "replay_batch_size"):
            config[size] = trial.suggest_categorical(size, [32, 64, 128, 256])
    return config
