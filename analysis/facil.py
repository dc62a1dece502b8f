"""FACIL's choices, made task by task, beside those of a search that saw the whole stream."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich.markup import escape
from rich.table import Table

from analysis.statistics import paired_difference
from analysis.tables import in_points, per_cent, plain


class Found(NamedTuple):
    """What was measured. Sequences hold one value a seed, all in the same order."""

    method: str
    metric: str  # name of the scores
    scores: Mapping[str, Sequence[float]]  # of "winner", "default" and "FACIL"; fractions on
    #                                        validation data, 0 where a run diverged
    coefficient: str  # name of what FACIL lets decay
    rates: Sequence[Sequence[float]]  # of each seed, one a task
    coefficients: Sequence[Sequence[float]]  # likewise, 0 in the first task
    attempts: Sequence[int]  # tasks learned
    searched: int  # tasks that the search has learned


def table(found: Found) -> Table:
    """Scores with intervals, what was chosen, and at what price."""
    seeds = len(found.attempts)
    shown = plain(
        f"{escape(found.method)} tuned task by task (FACIL), and by this search",
        f"{found.metric.replace('_', ' ')} on validation data; mean ± 95 % interval over"
        f" {seeds} fresh seeds (Student's t), differences in points and paired by seed",
    )
    for name in ("", f"{found.metric.replace('_', ' ')}, %", "− winner", "tasks learned to tune"):
        shown.add_column(name, justify="right" if name else "left")
    prices = {"winner": str(found.searched), "default": "0"}
    for name, scores in found.scores.items():
        behind = in_points(paired_difference(scores, found.scores["winner"]))
        price = prices.get(name, f"{sum(found.attempts) / seeds:.0f} a seed")
        shown.add_row(name, per_cent(scores), behind if name != "winner" else "", price)
    return shown


def choices(found: Found) -> str:
    """What was chosen before each task, the first seed's."""
    rates = " ".join(f"{rate:g}" for rate in found.rates[0])
    kept = " ".join(f"{value:.3g}" for value in found.coefficients[0][1:])
    return f"Chosen by the first seed, task by task: lr {rates}; {found.coefficient} – {kept}"
