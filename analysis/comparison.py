"""Studies of one stream side by side: what each method reaches at an equal budget."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from rich.filesize import decimal
from rich.table import Table

from analysis import look, reading
from analysis.log import RecordError
from analysis.statistics import paired_difference
from analysis.tables import as_markdown, per_cent, plain

SAME = ("benchmark", "scenario", "protocol", "trials")  # of best.yaml: what makes it fair
ALIKE = ("embedder", "attributes", "tasks", "memory")  # likewise, of study.yaml
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
    entries = [
        entry(reading.read(directory).trials, one, seeds_of(one), one["method"])
        for directory, one in zip(directories, found, strict=True)
    ]
    return sorted(entries, key=lambda one: -np.mean(one.tuned)), first["trials"]


def seeds_of(best: dict) -> list[int]:
    """The fresh seeds that a study ended on."""
    return sorted(best["comparison"]["winner"]["per_seed_test_joint_accuracy"])


def entry(trials: pd.DataFrame, best: Mapping[str, Any], seeds: Sequence[int], name: str) -> Entry:
    """The result of one study.

    Args:
        trials: of its record.
        best: as ``reading.best``.
        seeds: that it ended on, those to be looked at, in this order.
        name: what it is called.
    """
    reached = {
        label: best["comparison"][label]["per_seed_test_joint_accuracy"]
        for label in ("winner", "default")
    }
    own = trials[(trials.role == "final") & (trials.label == reading.label_of_winner(best))]
    kept = own.set_index("seed").forgetting.reindex(seeds)
    tuned, default = ([values[seed] for seed in seeds] for values in reached.values())
    return Entry(
        method=name,
        tuned=tuned,
        default=default,
        forgetting=[] if kept.isna().any() else kept.tolist(),
        memory_bytes=int(own.memory_bytes.fillna(0).max()),
        seconds=float(own.seconds.fillna(0).mean()),
    )


class Stream(NamedTuple):
    """Studies that searched the same stream by the same protocol with the same budget."""

    name: str  # of the benchmark, and what else tells it from the other streams
    studies: dict[str, reading.Study]  # by what each is called
    entries: list[Entry]  # on the seeds that all of them ended on, the best first


def streams(studies: Sequence[reading.Study]) -> list[Stream]:
    """Studies that can be compared, together; each of the others in a stream of its own.

    Args:
        studies: with a winner. One is called by its method, or by its own name where the stream has
            that method twice. On different numbers of seeds, those that all have count.

    Example:
        >>> [(one.name, [*one.studies]) for one in streams([study])]
        [('split_digits', ['lgm_vae'])]
    """
    groups: dict[tuple, list[reading.Study]] = {}  # also by who began it: seeds may be others
    for study in studies:
        asked = tuple((study.best or {})[name] for name in SAME)
        asked += tuple(study.settings.get(name) for name in ALIKE)
        fits = (
            key
            for key, members in groups.items()
            if key[:-1] == asked and shared([*members, study])
        )
        groups.setdefault(next(fits, (*asked, study.name)), []).append(study)
    benchmarks = Counter(key[0] for key in groups)
    found = []
    for key, members in groups.items():
        methods = Counter(str(study.settings["method"]) for study in members)
        named = {}
        for study in members:
            method = str(study.settings["method"])
            named[method if methods[method] == 1 else study.name] = study
        entries = [
            entry(study.trials, study.best or {}, shared(members), name)
            for name, study in named.items()
        ]
        title = key[0]
        if benchmarks[key[0]] > 1:
            title = f"{key[0]} ({', '.join(str(part) for part in key[1:3])}, {key[3]} trials)"
        if any(title == stream.name for stream in found):
            title = f"{title}, as {key[-1]}"
        found.append(Stream(title, named, sorted(entries, key=lambda one: -np.mean(one.tuned))))
    return found


def shared(studies: Sequence[reading.Study]) -> list[int]:
    """The fresh seeds that all of these studies ended on."""
    sets = [set(seeds_of(study.best or {})) for study in studies]
    return sorted(set.intersection(*sets))


def blocks(found: Sequence[Stream]) -> tuple[pd.DataFrame, str]:
    """What methods are ranked on: one row a block, one column a method; and what a block is.

    Over several streams a block is a stream, and of methods that all of them have their mean over
    seeds counts; in a single stream a block is a seed.

    Example:
        >>> scores, block = blocks(streams([study]))
        >>> scores.shape, block
        ((5, 1), 'seed')
    """
    if len(found) > 1:
        means = {
            stream.name: {one.method: float(np.mean(one.tuned)) for one in stream.entries}
            for stream in found
        }
        return pd.DataFrame(means).T.dropna(axis=1), "benchmark"
    return pd.DataFrame({one.method: one.tuned for one in found[0].entries}), "seed"


def points(a: Sequence[float], b: Sequence[float]) -> str:
    """The paired difference a − b of fractions, in points, as ``+2.5 ± 1.1``.

    Example:
        >>> points([0.9, 0.8, 0.7], [0.8, 0.7, 0.5])
        '+13.3 ± 14.3'
    """
    found = paired_difference(a, b)
    half = f"{100 * found.half:.1f}" if found.n > 1 else "n/a"
    return f"{look.points(found.mean)} ± {half}"


def cells(entries: Sequence[Entry]) -> list[list[str]]:
    """A row for each entry, as in ``HEADER``.

    Example:
        >>> cells(streams([study])[0].entries)[0][:4]
        ['lgm_vae', '80.2 ± 1.3', '69.7 ± 1.6', '+10.5 ± 1.7']
    """
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
    """What the columns are."""
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
    return as_markdown([HEADER, *cells(entries)], caption(entries, trials))
