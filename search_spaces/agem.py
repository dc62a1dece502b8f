"""Search space of averaged gradient episodic memory, ``trainables/agem.py``.

There is no coefficient: the constraint is kept by a projection. Neither is there momentum, or Adam:
behind them a step along the projected gradient may raise the memory's loss again.
"""

from search_spaces._common import perceptron

# The rate that the paper chose for MNIST.
DEFAULT = {"steps": 300, "lr": 0.1, "label_smoothing": 0.0}


def space(trial, search_shapes: bool = False) -> dict:
    """Suggest one configuration."""
    config = {
        "steps": trial.suggest_int("steps", 100, 400),
        "lr": trial.suggest_float("lr", 1e-3, 0.3, log=True),  # the range of the authors' grids
        "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.2),
    }
    if search_shapes:
        config |= perceptron(trial)
        sizes = [64, 128, 256]
        config["replay_batch_size"] = trial.suggest_categorical("replay_batch_size", sizes)
    return config
