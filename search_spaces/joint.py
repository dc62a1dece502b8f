"""Search space of joint training, ``trainables/joint.py``."""

from search_spaces._common import CLASSIFIER_DEFAULT, classifier, flag, perceptron

# Fresh weights at each task, so that no order of tasks is favoured.
DEFAULT = CLASSIFIER_DEFAULT | {"from_scratch": True}


def space(trial, search_shapes: bool = False) -> dict:
    """Suggest one configuration."""
    config = classifier(trial) | flag(trial, "from_scratch")
    if search_shapes:
        config |= perceptron(trial)
    return config
