"""Search space of synaptic intelligence, ``trainables/si.py``.

c is in units in which each task's importances have mean 1, so one range serves all networks. It and
ξ interact: they are searched together.
"""

from search_spaces._common import CLASSIFIER_DEFAULT, classifier, coefficient, perceptron

# ξ as in the paper's permuted MNIST; c = 1, in other units than there.
DEFAULT = CLASSIFIER_DEFAULT | {"si": 1.0, "damping": 0.1}


def space(trial, search_shapes: bool = False) -> dict:
    """Suggest one configuration."""
    config = classifier(trial) | coefficient(trial, "si", 1e-3, 1e3)
    config |= coefficient(trial, "damping", 1e-3, 1.0)
    if search_shapes:
        config |= perceptron(trial)
    return config
