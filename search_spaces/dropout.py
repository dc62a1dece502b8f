"""Search space of sequential fine-tuning with dropout, ``trainables/dropout.py``."""

from search_spaces._common import CLASSIFIER_DEFAULT, classifier, perceptron

# The probabilities of Goodfellow et al.
DEFAULT = CLASSIFIER_DEFAULT | {"p_in": 0.2, "p_hidden": 0.5}


def space(trial, search_shapes: bool = False) -> dict:
    """Suggest one configuration. At p = 0 it is sequential fine-tuning."""
    config = classifier(trial)
    config["p_in"] = trial.suggest_float("p_in", 0.0, 0.4)
    config["p_hidden"] = trial.suggest_float("p_hidden", 0.0, 0.7)
    if search_shapes:
        config |= perceptron(trial)
    return config
