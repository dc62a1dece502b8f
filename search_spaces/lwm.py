"""Search space of learning without memorizing, ``trainables/lwm.py``."""

from search_spaces._common import CLASSIFIER_DEFAULT, classifier, coefficient, flag, perceptron

# T = 2 and one softmax; the paper has no weights: β = 1 without our T², γ = 1.
DEFAULT = CLASSIFIER_DEFAULT | {
    "lwf": 0.25,
    "temperature": 2.0,
    "per_task": False,
    "attention": 1.0,
}


def space(trial, search_shapes: bool = False) -> dict:
    """Suggest one configuration."""
    config = classifier(trial) | coefficient(trial, "lwf", 0.01, 100.0)
    config["temperature"] = trial.suggest_float("temperature", 1.0, 4.0)
    config |= flag(trial, "per_task") | coefficient(trial, "attention", 0.01, 100.0)
    if search_shapes:
        config |= perceptron(trial)
    return config
