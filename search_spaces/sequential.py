"""Search space of sequential fine-tuning, ``trainables/sequential.py``."""

from search_spaces._common import adam, perceptron

# Adam at its usual rate, and as many steps a task as the classifiers of other methods get.
DEFAULT = {"steps": 300, "lr": 1e-3, "beta1": 0.9, "label_smoothing": 0.0}


def space(trial, search_shapes: bool = False) -> dict:
    """Suggest one configuration."""
    config = {"steps": trial.suggest_int("steps", 100, 400)} | adam(trial)
    config["label_smoothing"] = trial.suggest_float("label_smoothing", 0.0, 0.2)
    if search_shapes:
        config |= perceptron(trial)
    return config
