"""Search space of elastic weight consolidation, ``trainables/ewc.py``.

λ is in units in which each task's importances have mean 1, so one range serves all networks; in
units of F itself the literature has 10⁰ to 10¹³.
"""

from search_spaces._common import CLASSIFIER_DEFAULT, classifier, coefficient, flag, perceptron

# Online, without decay: what most codebases ship. λ = 1 is ours.
DEFAULT = CLASSIFIER_DEFAULT | {"ewc": 1.0, "online": True, "decay": 1.0}


def space(trial, search_shapes: bool = False) -> dict:
    """Suggest one configuration. ``decay`` exists only online."""
    config = classifier(trial) | coefficient(trial, "ewc", 1e-3, 1e3)
    config |= flag(trial, "online")
    if config["online"]:
        config["decay"] = trial.suggest_float("decay", 0.5, 1.0)
    if search_shapes:
        config |= perceptron(trial)
    return config
