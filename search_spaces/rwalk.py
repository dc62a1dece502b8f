"""Search space of the Riemannian walk, ``trainables/rwalk.py``.

λ is in units in which the importances of a network lie between 0 and 1: one range serves all.
"""

from search_spaces._common import CLASSIFIER_DEFAULT, classifier, coefficient, perceptron

# What the authors' code has for MNIST: λ = 1, Δt = 10, α = 0.9, ε = 1e-3.
DEFAULT = CLASSIFIER_DEFAULT | {
    "rwalk": 1.0,
    "interval": 10,
    "fisher_rate": 0.9,
    "damping": 1e-3,
}


def space(trial, search_shapes: bool = False) -> dict:
    """Suggest one configuration."""
    config = classifier(trial) | coefficient(trial, "rwalk", 1e-2, 1e3)
    # 10 for MNIST and 50 for CIFAR in the paper; the fewest steps of a task are two of the longest.
    config["interval"] = trial.suggest_int("interval", 5, 50, log=True)
    config["fisher_rate"] = trial.suggest_float("fisher_rate", 0.5, 0.99)
    # From what other codebases have at most down to where it no longer matters beside the rest.
    config |= coefficient(trial, "damping", 1e-8, 0.1)
    if search_shapes:
        config |= perceptron(trial)
    return config
