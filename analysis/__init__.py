"""What a study's record says: storing, reading, statistics, tables and figures.

``analysis.load(path)`` gives a ``Study``, whose ``trials``, ``accuracy``, ``losses`` and
``quality`` are pandas frames; the functions of this package go from there.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.reading import Study, load

__all__ = ["Study", "load"]


def __getattr__(name: str):
    """``load`` and ``Study``, imported when they are asked for: pandas takes its time."""
    if name in __all__:
        from analysis import reading

        return getattr(reading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
