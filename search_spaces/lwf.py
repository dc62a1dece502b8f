"""Search space of learning without forgetting, ``trainables/lwf.py``.

Every term is a mean over examples and, but for the divergence, over what it compares.
"""

from search_spaces._common import CLASSIFIER_DEFAULT, classifier, coefficient, flag, perceptron

# The paper's: λ = 1 without our T² before it, T = 2, a softmax for each task.
DEFAULT = CLASSIFIER_DEFAULT | {
    "lwf": 0.25,
    "temperature": 2.0,
    "per_task": True,
    "extra": "none",
}


def space(trial, search_shapes: bool = False) -> dict:
    """Suggest one configuration. The coefficient of an extra term exists only where it is used."""
    config = classifier(trial) | coefficient(trial, "lwf", 0.01, 100.0)
    config["temperature"] = trial.suggest_float("temperature", 1.0, 4.0)
    config |= flag(trial, "per_task")
    config["extra"] = trial.suggest_categorical("extra", ["none", "hint", "similarity"])
    if config["extra"] != "none":
        config |= coefficient(trial, config["extra"], 1e-3, 100.0)
    if search_shapes:
        config |= perceptron(trial)
    return config
