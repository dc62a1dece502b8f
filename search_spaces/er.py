"""Search space of experience replay, ``trainables/er.py``.

The memory is a budget, not a hyperparameter: its size and policy keep the method's defaults.
"""

from search_spaces._common import CLASSIFIER_DEFAULT, classifier, coefficient, perceptron

# Real and replayed examples count the same, as in the papers.
DEFAULT = CLASSIFIER_DEFAULT | {"rehearsal": 1.0}


def space(trial, search_shapes: bool = False) -> dict:
    """Suggest one configuration."""
    config = classifier(trial) | coefficient(trial, "rehearsal", 0.1, 10.0)
    if search_shapes:
        config |= perceptron(trial)
        sizes = [16, 32, 64, 128]
        config["replay_batch_size"] = trial.suggest_categorical("replay_batch_size", sizes)
    return config
