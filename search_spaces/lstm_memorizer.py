"""Search space of the memorizing network, ``trainables/lstm_memorizer.py``."""

# 1,000 updates are the source's. Its rate of 1e-3 was for 2,048 hidden units: fewer want more, and
# at 256 it is 1e-2 that stores all of 1,000 vectors.
DEFAULT = {"steps": 1000, "lr": 1e-2}


def space(trial, search_shapes: bool = False) -> dict:
    """Suggest one configuration."""
    config = {
        "steps": trial.suggest_int("steps", 100, 1000),
        "lr": trial.suggest_float("lr", 3e-4, 3e-2, log=True),
    }
    if search_shapes:
        config["hidden"] = trial.suggest_categorical("hidden", [64, 128, 256, 512])
    return config
