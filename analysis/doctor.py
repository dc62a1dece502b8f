"""What may be wrong with a search, each with its evidence in numbers and what to do about it."""

from typing import Literal, NamedTuple

from analysis.parameters import Space
from analysis.reading import Study


class Finding(NamedTuple):
    """One thing worth knowing before the result is believed."""

    severity: Literal["problem", "warning", "note"]
    title: str  # what, in a few words
    evidence: str  # in numbers
    advice: str  # what to do; a command stands between backticks


def findings(study: Study, space: Space | None = None) -> list[Finding]:
    """What may be wrong with a search, the worst first; nothing where all is well.

    Args:
        study: of ``analysis.load``, also unfinished.
        space: name -> Optuna's distribution, of every parameter searched. Without it nothing is
            said of the edges of ranges.
    """
    return []
