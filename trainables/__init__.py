"""Continual-learning methods. Every file here is a method; every folder is machinery."""

import importlib
import pathlib
from types import ModuleType, SimpleNamespace

TRAINABLE = "trainable"  # the embedder that is trained with a method


def names() -> list[str]:
    """Names of all methods: the file names of this folder, sorted."""
    return sorted(f.stem for f in pathlib.Path(__file__).parent.glob("[!_]*.py"))


def load(name: str, embedder: str = "") -> ModuleType | SimpleNamespace:
    """Import the module of one method, e.g. ``load("lgm_acgan")``.

    Args:
        embedder: "trainable" puts an embedder that is trained with it in front of the method; all
            others are no part of a method.
    """
    module = importlib.import_module(f"trainables.{name}")
    if embedder != TRAINABLE:
        return module
    from trainables.engine.embedder import in_front_of

    return in_front_of(module)
