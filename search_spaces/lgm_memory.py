"""Search space of LGM with a static memory, ``trainables/lgm_memory.py``."""

from search_spaces._common import adam, perceptron

# The classifier of LGM-AC-GAN under its authors' settings. The memory is a budget, not a
# hyperparameter: it keeps the method's default.
DEFAULT = {
    "classifier_steps": 300,
    "classifier_lr": 1e-3,
    "classifier_beta1": 0.0,
    "classifier_rehearsal": 1.0,
    "label_smoothing": 0.0,
    "reset_classifier": False,
}


def space(trial, search_shapes: bool = False) -> dict:
    """Suggest one configuration."""
    config = {"classifier_steps": trial.suggest_int("classifier_steps", 100, 400)}
    config |= adam(trial, "classifier")
    config["classifier_rehearsal"] = trial.suggest_float(
        "classifier_rehearsal", 0.1, 10.0, log=True
    )
    config["label_smoothing"] = trial.suggest_float("label_smoothing", 0.0, 0.2)
    config["reset_classifier"] = trial.suggest_categorical("reset_classifier", [True, False])
    if search_shapes:
        config |= perceptron(trial, "classifier")
        for size in ("batch_size", "replay_batch_size"):
            config[size] = trial.suggest_categorical(size, [32, 64, 128, 256])
    return config
