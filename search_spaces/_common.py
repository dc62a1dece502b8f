"""Fragments that several search spaces share."""


def adam(trial, component: str = "") -> dict:
    """Learning rate and first moment of Adam for one component, or for the whole model.

    Rates below 1e-4 do not arrive in the few hundred steps of a task; above 1e-2 small nets
    diverge. β1 = 0 is what GANs use, 0.9 what everything else does.
    """
    name = f"{component}_" if component else ""
    return {
        f"{name}lr": trial.suggest_float(f"{name}lr", 1e-4, 1e-2, log=True),
        f"{name}beta1": trial.suggest_categorical(f"{name}beta1", [0.0, 0.5, 0.9]),
    }


def perceptron(trial, prefix: str = "") -> dict:
    """Width and depth of a perceptron, opened by ``--search-shapes``."""
    name = f"{prefix}_" if prefix else ""
    return {
        f"{name}hidden": trial.suggest_categorical(f"{name}hidden", [64, 128, 256, 512]),
        f"{name}layers": trial.suggest_int(f"{name}layers", 1, 3),
    }
