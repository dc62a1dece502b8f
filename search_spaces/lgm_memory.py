"""Search space of LGM with a static memory, ``trainables/lgm_memory.py``."""

from search_spaces._common import adam, coefficient, flag, shapes

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
    config |= coefficient(trial, "classifier_rehearsal", 0.1, 10.0)
    config["label_smoothing"] = trial.suggest_float("label_smoothing", 0.0, 0.2)
    config |= flag(trial, "reset_classifier")
    if search_shapes:
        batches = "batch_size", "replay_batch_size"
        config |= shapes(trial, ("classifier",), batches, latent=False)
    return config
