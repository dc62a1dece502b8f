"""The events of a log, checked: whatever passes here can be stored, replayed and tabulated."""

import json
import math
from collections.abc import Iterable
from datetime import datetime
from difflib import get_close_matches
from typing import Any, NamedTuple

import pyarrow as pa

from analysis import schema


class Report(NamedTuple):
    """One task learned by one trial."""

    trial_id: int
    seed: int
    task: int
    accuracy: dict[str, list[float]]  # split -> A[task, :task + 1]
    examples: dict[str, list[int]]  # split -> n_j of the same tasks
    losses: dict[str, float]
    quality: dict[str, dict[str, list[float]]]  # split -> measure -> a number for each task


def report(event: dict[str, Any]) -> Report:
    """A task event.

    Raises:
        ValueError: for an unknown split, rows that do not have ``task + 1`` entries, or numbers out
            of range.
    """
    event = {"quality": {}} | event  # logs of schema 1 have none
    told = Report(**{name: event[name] for name in Report._fields})
    if not _counts(told[:3]):
        raise ValueError(f"expected trial_id, seed and task as ints >= 0, got {told[:3]}")
    if told.accuracy.keys() != told.examples.keys() or not set(told.accuracy) <= {*schema.SPLITS}:
        raise ValueError(
            f"expected splits of {schema.SPLITS}, the same in accuracy and examples, got"
            f" {list(told.accuracy)} and {list(told.examples)}"
        )
    for split, row in told.accuracy.items():
        sizes = told.examples[split]
        if not len(row) == len(sizes) == told.task + 1:
            raise ValueError(
                f"expected {told.task + 1} accuracies and examples on {split} after task"
                f" {told.task}, got {len(row)} and {len(sizes)}"
            )
        if not all(0 <= cell <= 1 for cell in row) or not _counts(sizes) or 0 in sizes:
            raise ValueError(f"expected fractions of > 0 examples on {split}, got {row} of {sizes}")
    if not all(isinstance(value, int | float) for value in told.losses.values()):
        raise ValueError(f"expected numbers as losses, got {told.losses}")
    if not told.quality.keys() <= told.accuracy.keys():
        raise ValueError(
            f"expected quality on splits of {list(told.accuracy)}, got {list(told.quality)}"
        )
    for measures in told.quality.values():
        for name, row in measures.items():
            numbers = [value for value in row if isinstance(value, int | float)]
            if not len(numbers) == len(row) == told.task + 1:
                raise ValueError(
                    f"expected {told.task + 1} numbers as {name} after task {told.task}, got {row}"
                )
    return told


def trial(study: str, event: dict[str, Any]) -> dict[str, Any]:
    """The columns of a finish event that are not derived, None where absent, and ``config``.

    Raises:
        ValueError: for an unknown or missing column, or a value of another type.
    """
    given = event["columns"] | {"study": study, "trial_id": event["trial_id"]}
    reported = [c for c in schema.TRIALS if not c.derived]
    names = [c.name for c in reported]
    for name in given:
        if name not in names:
            near = get_close_matches(name, names, 1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"the record takes no column {name!r}{hint}")
    row = {c.name: _cell(c, given.get(c.name)) for c in reported}
    if not _counts([row["trial_id"], row["tasks_learned"]]):
        raise ValueError(f"expected trial_id and tasks_learned as ints >= 0, got {given}")
    return row | {"config": event["config"]}


def _counts(values: Iterable[Any]) -> bool:
    """Whether all are ints >= 0 that fit a column."""
    return all(type(value) is int and 0 <= value < 2**63 for value in values)


def _cell(column: schema.Column, value: Any) -> Any:
    """A value of a column's type, or None."""
    if isinstance(value, dict):
        value = json.dumps(value, sort_keys=True)
    elif column.type == schema.TIME and isinstance(value, str):
        value = datetime.fromisoformat(value)
    elif isinstance(value, float) and math.isnan(value):
        value = None
    if value is None:
        if column.required:
            raise ValueError(f"expected a value in column {column.name!r}, got none")
        return None
    try:
        cell = pa.scalar(value, column.type).as_py()
    except (pa.ArrowException, OverflowError, TypeError):
        cell = None
    if cell != value or (column.choices and value not in column.choices):
        expected = f"one of {column.choices}" if column.choices else f"a value of {column.type}"
        raise ValueError(f"expected {expected} in column {column.name!r}, got {value!r}")
    return cell
