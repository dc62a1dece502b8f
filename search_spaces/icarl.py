"""Search space of iCaRL, ``trainables/icarl.py``.

The memory is a budget, not a hyperparameter. Targets are not smoothed: those of old classes are
soft already.
"""

from search_spaces._common import adam, coefficient, perceptron

# Distillation as in the paper; Adam at its usual rate; real and stored examples count the same.
DEFAULT = {"steps": 300, "lr": 1e-3, "beta1": 0.9, "distillation": 1.0, "rehearsal": 1.0}


def space(trial, search_shapes: bool = False) -> dict:
    """Suggest one configuration."""
    config = {"steps": trial.suggest_int("steps", 100, 400)} | adam(trial)
    config |= coefficient(trial, "distillation", 0.1, 10.0)
    config |= coefficient(trial, "rehearsal", 0.1, 10.0)
    if search_shapes:
        config |= perceptron(trial)
        sizes = [16, 32, 64, 128]
        config["replay_batch_size"] = trial.suggest_categorical("replay_batch_size", sizes)
    return config
