"""Search space of averaged gradient episodic memory, ``trainables/agem.py``.

There is no coefficient: the constraint is kept by a projection. ``--fix optimizer=sgd`` takes the
paper's steps; its authors searched rates from 0.001 to 0.3 and chose 0.1 for MNIST:
``--fix lr=0.1 --fix beta1=0``.
"""

from search_spaces._common import CLASSIFIER_DEFAULT, classifier, perceptron

DEFAULT = CLASSIFIER_DEFAULT


def space(trial, search_shapes: bool = False) -> dict:
    """Suggest one configuration."""
    config = classifier(trial)
    if search_shapes:
        config |= perceptron(trial)
        sizes = [64, 128, 256]
        config["replay_batch_size"] = trial.suggest_categorical("replay_batch_size", sizes)
    return config
