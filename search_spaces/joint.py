"""Search space of joint training, ``trainables/joint.py``."""

from search_spaces._common import adam, perceptron

# Adam at its usual rate; fresh weights at each task, so that no order of tasks is favoured.
DEFAULT = {
    "steps": 300,
    "lr": 1e-3,
    "beta1": 0.9,
    "label_smoothing": 0.0,
    "from_scratch": True,
}


def space(trial, search_shapes: bool = False) -> dict:
    """Suggest one configuration."""
    config = {"steps": trial.suggest_int("steps", 100, 400)} | adam(trial)
    config["label_smoothing"] = trial.suggest_float("label_smoothing", 0.0, 0.2)
    config["from_scratch"] = trial.suggest_categorical("from_scratch", [True, False])
    if search_shapes:
        config |= perceptron(trial)
    return config
