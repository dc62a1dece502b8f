"""Search space of GenMem-VAE, ``trainables/genmem_vae.py``.

Ranges are those of the values that its author tried, widened as LGM-VAE's are.
"""

from search_spaces._common import adam, flag, shapes, vae_terms

# The author's: both players start over at each task, and the classifier learns from memory alone.
# Its 500 epochs a task were some thousand updates, far more than the 400 here.
DEFAULT = {
    "vae_steps": 400,
    "classifier_steps": 300,
    "vae_lr": 1e-3,
    "vae_beta1": 0.9,
    "vae_beta2": 0.999,
    "classifier_lr": 1e-3,
    "classifier_beta1": 0.9,
    "divergence": 0.32,
    "encoder_rehearsal": 1.0,
    "decoder_rehearsal": 1.0,
    "learn_prior": False,
    "label_smoothing": 0.0,
    "reset_vae": True,
    "reset_classifier": True,
}


def space(trial, search_shapes: bool = False) -> dict:
    """Suggest one configuration of GenMem-VAE."""
    config = {
        "vae_steps": trial.suggest_int("vae_steps", 100, 800),
        "classifier_steps": trial.suggest_int("classifier_steps", 100, 400),
    }
    config |= adam(trial, "vae") | adam(trial, "classifier")
    config["vae_beta2"] = trial.suggest_categorical("vae_beta2", [0.9, 0.999])
    config |= vae_terms(trial)
    config["label_smoothing"] = trial.suggest_float("label_smoothing", 0.0, 0.2)
    config |= flag(trial, "reset_vae") | flag(trial, "reset_classifier")
    if search_shapes:
        batches = "batch_size", "replay_batch_size", "classifier_batch_size"
        config |= shapes(trial, ("vae", "classifier"), batches)
    return config
