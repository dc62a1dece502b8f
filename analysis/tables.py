"""The table at the end of a study: winner, default, floor and ceiling on the test split."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from analysis import look
from analysis.reading import Study, label_of_winner
from analysis.statistics import Interval, mean_interval

HEADER = (
    "",
    "joint accuracy, %",
    "average accuracy, %",
    "forgetting, %",
    "seeds",
    "memory",
    "seconds",
)
CAPTION = (
    "accuracies on the test split, forgetting on validation data;"
    " mean ± 95 % interval of the mean over fresh seeds (Student's t)"
)

QUALITY = {  # measure -> its column, and what the caption says of it
    "cas": ("CAS, %", "CAS: accuracy of a classifier trained on generated examples only"),
    "explained_variance": (
        "explained variance, %",
        "explained variance: share of the inputs' variance that their reconstructions keep",
    ),
}


class Contender(NamedTuple):
    """What one row was measured to be: sequences hold one value a seed, in the same order."""

    name: str  # as it shall read, e.g. "winner (trial 17)", "sequential (floor)"
    joint_accuracy: Sequence[float]  # fractions in [0, 1], on the test split
    average_accuracy: Sequence[float]  # fractions in [0, 1]
    forgetting: Sequence[float]  # fractions in [-1, 1], on validation data; empty if undefined
    memory_bytes: Sequence[int]  # carried between tasks; the largest is shown
    seconds: Sequence[float]  # of training; the mean is shown
    quality: Mapping[str, Sequence[float]] = MappingProxyType({})  # on the test split, fractions,
    #                                                  of those in QUALITY that the method has


def plain(title: str, caption: str) -> Table:
    """A table without columns yet, in the look that all of ours have."""
    return Table(
        title=title, caption=caption, box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False
    )


def final_table(rows: Sequence[Contender]) -> Table:
    """The comparison as a rich table, in the order given.

    Raises:
        ValueError: if a contender has no seed, other than equally many values, or one not finite.
    """
    header, *body = grid(rows)
    table = plain("Final comparison", caption(rows))
    for i, name in enumerate(header):
        # In a narrow terminal names wrap, numbers do not; headers always do, before names have to.
        name = name.replace(" accuracy", "\naccuracy").replace(" variance", "\nvariance")
        name = name.replace("forgetting, ", "forgetting,\n")
        widest = max((len(cells[i]) for cells in body), default=0)
        table.add_column(name, justify="right", min_width=widest) if i else table.add_column(name)
    for cells in body:
        table.add_row(*map(escape, cells))
    return table


def final_markdown(rows: Sequence[Contender]) -> str:
    """The comparison as a Markdown table whose columns line up as plain text too.

    Raises:
        ValueError: as ``final_table``.
    """
    return as_markdown(grid(rows), caption(rows))


def as_markdown(grid: Sequence[Sequence[str]], caption: str) -> str:
    """A table, header first, as Markdown, and its caption below it.

    Example:
        >>> print(as_markdown([["method", "%"], ["er", "92.6"]], "three seeds"))
        | method |    % |
        | ------ | ---: |
        | er     | 92.6 |
        <BLANKLINE>
        three seeds
        <BLANKLINE>
    """
    escaped = [[cell.replace("|", r"\|") for cell in cells] for cells in grid]
    widths = [max(map(len, column)) for column in zip(*escaped, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        " | ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [escaped[0], rule, *escaped[1:]]
    ]
    return "\n".join(f"| {line} |" for line in lines) + f"\n\n{caption}\n"


def per_cent(values: Sequence[float]) -> str:
    """Fractions over seeds as ``87.3 ± 1.2``, in per cent.

    One seed has no interval, ``87.3 ± n/a``; no value at all is ``n/a``.

    Example:
        >>> per_cent([0.8, 0.9, 1.0])
        '90.0 ± 24.8'
    """
    if not len(values):
        return "n/a"
    interval = mean_interval(values)
    half = f"{100 * interval.half:.1f}" if interval.n > 1 else "n/a"
    return f"{100 * interval.mean:z.1f} ± {half}"  # as ``:.1%`` rounds it elsewhere


def in_points(interval: Interval) -> str:
    """A mean and its bounds in percentage points: ``−12.3 (−20.4 to −4.3)``."""
    mean, low, high = (look.points(value) for value in interval[:3])
    return f"{mean} ({low} to {high})" if interval.n > 1 else f"{mean} (n/a)"


def _measures(rows: Sequence[Contender]) -> list[str]:
    """The measures that some contender has, each of which is a column."""
    return [name for name in QUALITY if any(name in row.quality for row in rows)]


def caption(rows: Sequence[Contender]) -> str:
    """What the columns are."""
    return "; ".join([CAPTION, *(QUALITY[name][1] for name in _measures(rows))])


def grid(rows: Sequence[Contender]) -> list[list[str]]:
    """Header and cells, as text."""
    grid = [list(HEADER), *map(_cells, rows)]
    for name in reversed(_measures(rows)):
        column = [QUALITY[name][0], *(per_cent(row.quality.get(name, [])) for row in rows)]
        for cells, cell in zip(grid, column, strict=True):
            cells.insert(4, cell)
    return grid


def _cells(row: Contender) -> list[str]:
    seeds = len(row.joint_accuracy)
    values = row.average_accuracy, row.memory_bytes, row.seconds, *row.quality.values()
    if not seeds or {*map(len, values)} != {seeds} or len(row.forgetting) not in (0, seeds):
        raise ValueError(f"expected one value a seed, at least one seed, of {row.name!r}")
    return [
        row.name,
        per_cent(row.joint_accuracy),
        per_cent(row.average_accuracy),
        per_cent(row.forgetting),
        str(seeds),
        decimal(int(max(row.memory_bytes))),
        f"{sum(row.seconds) / seeds:.1f}",
    ]


def of_study(study: Study) -> list[Contender]:
    """What a study ends with, read back from its record: the rows of the final table.

    A seed on which a contender diverged has accuracy 0 and no forgetting, as in ``best.yaml``.

    Args:
        study: with a winner.

    Example:
        >>> [one.name for one in of_study(study)]
        ['winner (trial 1)', 'default', 'sequential (floor)', 'joint (ceiling)']
    """
    best = study.best or {}
    metric, winner = study.settings.get("metric"), label_of_winner(best)
    measure = metric if metric in QUALITY else "cas"
    final = study.trials.query("role == 'final'").sort_values("seed")
    tested = study.accuracy[study.accuracy.split == "test"].groupby("trial_id").accuracy.mean()
    rows = []
    for name, plain in best["comparison"].items():
        own = final[final.label == (winner if name == "winner" else name)]
        joint = plain["per_seed_test_joint_accuracy"]
        kept = own.forgetting
        of_search = "" if plain["trial"] is None else f" (trial {plain['trial']})"
        whose = {"sequential": " (floor)", "joint": " (ceiling)"}.get(name, of_search)
        per_seed = plain.get(f"per_seed_test_{measure}")
        rows.append(
            Contender(
                name + whose,
                [float(joint[seed]) for seed in own.seed],
                tested.reindex(own.trial_id).fillna(0.0).tolist(),
                [] if kept.isna().any() else kept.tolist(),
                own.memory_bytes.fillna(0).astype(int).tolist(),
                own.seconds.fillna(0.0).tolist(),
                {measure: [float(per_seed[seed]) for seed in own.seed]} if per_seed else {},
            )
        )
    return rows
