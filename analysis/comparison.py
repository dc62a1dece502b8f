"""Studies of one stream side by side: what each method reaches at an equal budget."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.filesize import decimal
from rich.table import Table

from analysis import reading
from analysis.log import RecordError
from analysis.statistics import paired_difference
from analysis.tables import per_cent, plain

SAME = ("benchmark", "scenario", "protocol", "trials")  # of best.yaml: what makes it fair
HEADER = (
    "method",
    "tuned, %",
    "default, %",
    "tuned − default",
    "behind the best",
    "forgetting, %",
    "memory",
    "seconds",
)
CAPTION = (
    "joint accuracy on the test split, forgetting on validation data; mean ± 95 % interval over"
    " {seeds} fresh seeds (Student's t), differences in points and paired by seed; {trials} trials"
    " each"
)


class Entry(NamedTuple):
    """One study's result. Sequences hold one value a seed, all studies' in the same order."""

    method: str
    tuned: Sequence[float]  # fractions in [0, 1], joint accuracy of the winner on the test split
    default: Sequence[float]
    forgetting: Sequence[float]  # of the winner, on validation data; empty if undefined
    memory_bytes: int  # carried between tasks
    seconds: float  # of training, a run


def read(directories: Sequence[Path]) -> tuple[list[Entry], int]:
    """The results of studies, the best first, and how many trials each of them had.

    Raises:
        RecordError: if a study has no winner yet, or they are not of the same stream, protocol,
            budget and seeds.
    """
    found = [reading.best(directory) for directory in directories]
    first = found[0]
    for directory, one in zip(directories, found, strict=True):
        for name in SAME:
            if one[name] != first[name]:
                raise RecordError(
                    f"cannot compare {directory} with {directories[0]}: {name} is {one[name]!r}"
                    f" there, {first[name]!r} here"
                )
        if seeds_of(one) != seeds_of(first):
            raise RecordError(
                f"cannot compare {directory} with {directories[0]}: they end on other seeds"
            )
    entries = [entry(*pair) for pair in zip(directories, found, strict=True)]
    return sorted(entries, key=lambda one: -np.mean(one.tuned)), first["trials"]


def seeds_of(best: dict) -> list[int]:
    """The fresh seeds that a study ended on."""
    return sorted(best["comparison"]["winner"]["per_seed_test_joint_accuracy"])


def entry(directory: Path, best: dict) -> Entry:
    """The result of one study, from ``best.yaml`` and ``trials.parquet``."""
    reached = {
        label: best["comparison"][label]["per_seed_test_joint_accuracy"]
        for label in ("winner", "default")
    }
    rows = reading.read(directory).trials
    own = rows[(rows.role == "final") & (rows.label == reading.label_of_winner(best))]
    kept = own.set_index("seed").forgetting.reindex(seeds_of(best))
    tuned, default = ([values[seed] for seed in seeds_of(best)] for values in reached.values())
    return Entry(
        method=best["method"],
        tuned=tuned,
        default=default,
        forgetting=[] if kept.isna().any() else kept.tolist(),
        memory_bytes=int(own.memory_bytes.fillna(0).max()),
        seconds=float(own.seconds.fillna(0).mean()),
    )


def points(a: Sequence[float], b: Sequence[float]) -> str:
    """The paired difference a − b of fractions, in points, as ``+2.5 ± 1.1``."""
    found = paired_difference(a, b)
    half = f"{100 * found.half:.1f}" if found.n > 1 else "n/a"
    return f"{100 * found.mean:+z.1f} ± {half}"


def cells(entries: Sequence[Entry]) -> list[list[str]]:
    """A row for each entry, as in ``HEADER``."""
    return [
        [
            one.method,
            per_cent(one.tuned),
            per_cent(one.default),
            points(one.tuned, one.default),
            points(one.tuned, entries[0].tuned) if one is not entries[0] else "",
            per_cent(one.forgetting),
            decimal(one.memory_bytes),
            f"{one.seconds:.1f}",
        ]
        for one in entries
    ]


def caption(entries: Sequence[Entry], trials: int) -> str:
    return CAPTION.format(seeds=len(entries[0].tuned), trials=trials)


def comparison_table(entries: Sequence[Entry], trials: int) -> Table:
    """The comparison as a rich table, in the order given."""
    table = plain("Comparison at an equal budget", caption(entries, trials))
    for name in HEADER:
        table.add_column(name, justify="left" if name == HEADER[0] else "right")
    for row in cells(entries):
        table.add_row(*row)
    return table


def comparison_markdown(entries: Sequence[Entry], trials: int) -> str:
    """The same as a Markdown table."""
    rule = ["---", *["---:"] * (len(HEADER) - 1)]
    lines = ["| " + " | ".join(row) + " |" for row in (HEADER, rule, *cells(entries))]
    return "\n".join(lines) + f"\n\n{caption(entries, trials)}\n"
