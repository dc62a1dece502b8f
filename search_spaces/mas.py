"""Search space of memory aware synapses, ``trainables/mas.py``.

λ is in units in which each task's importances have mean 1, so one range serves all networks.
"""

from search_spaces._common import CLASSIFIER_DEFAULT, classifier, coefficient, perceptron

# Importances add up and λ is 1, as in the authors' code, though in other units.
DEFAULT = CLASSIFIER_DEFAULT | {"mas": 1.0, "decay": 1.0}


def space(trial, search_shapes: bool = False) -> dict:
    """Suggest one configuration."""
    config = classifier(trial) | coefficient(trial, "mas", 1e-3, 1e3)
    config["decay"] = trial.suggest_float("decay", 0.5, 1.0)
    if search_shapes:
        config |= perceptron(trial)
    return config
