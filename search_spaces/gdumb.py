"""Search space of GDumb, ``trainables/gdumb.py``. The memory is a budget, not a hyperparameter."""

from search_spaces._common import CLASSIFIER_DEFAULT, classifier, perceptron

DEFAULT = CLASSIFIER_DEFAULT


def space(trial, search_shapes: bool = False) -> dict:
    """Suggest one configuration."""
    config = classifier(trial)
    if search_shapes:
        config |= perceptron(trial)
    return config
