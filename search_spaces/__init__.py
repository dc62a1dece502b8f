"""Search spaces, one file a method, under the name of its file in ``trainables/``."""

import importlib
import pathlib
from types import ModuleType


def names() -> list[str]:
    """Names of all methods: the file names of this folder, sorted."""
    return sorted(f.stem for f in pathlib.Path(__file__).parent.glob("[!_]*.py"))


def load(name: str) -> ModuleType:
    """Import the module of one method, e.g. ``load("lgm_acgan")``."""
    return importlib.import_module(f"search_spaces.{name}")
