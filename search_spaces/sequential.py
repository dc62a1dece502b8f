"""Search space of sequential fine-tuning, ``trainables/sequential.py``."""

from search_spaces._common import CLASSIFIER_DEFAULT, classifier, perceptron

DEFAULT = CLASSIFIER_DEFAULT


def space(trial, search_shapes: bool = False) -> dict:
    """Suggest one configuration."""
    config = classifier(trial)
    if search_shapes:
        config |= perceptron(trial)
    return config
