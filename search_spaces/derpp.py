"""Search space of dark experience replay, ``trainables/derpp.py``.

The memory is a budget, not a hyperparameter: its size and policy keep the method's defaults.
"""

from search_spaces._common import CLASSIFIER_DEFAULT, classifier, coefficient, perceptron

# Both as the authors have them on most of their benchmarks, where they are from 0.1 to 1.
DEFAULT = CLASSIFIER_DEFAULT | {"logit_rehearsal": 0.5, "rehearsal": 0.5}


def space(trial, search_shapes: bool = False) -> dict:
    """Suggest one configuration."""
    config = classifier(trial) | coefficient(trial, "logit_rehearsal", 0.01, 10.0)
    config |= coefficient(trial, "rehearsal", 0.1, 10.0)
    if search_shapes:
        config |= perceptron(trial)
        sizes = [16, 32, 64, 128]
        config["replay_batch_size"] = trial.suggest_categorical("replay_batch_size", sizes)
    return config
