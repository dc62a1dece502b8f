"""The record of a study: written by one process, valid at any moment, read by ``reading``.

``log.jsonl`` is the write-ahead log: one JSON object an event, appended before anything else
happens. ``trials.parquet``, ``accuracy.parquet``, ``losses.parquet`` and ``quality.parquet`` are
functions of the log; they are rebuilt whole and replaced atomically, so a reader never sees half a
file and a killed writer loses nothing. What the log says last holds: a task or a trial reported
twice is one.
"""

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from analysis import events, schema
from analysis.log import Log, RecordError, decode, encode, lines, writing
from trainables.engine import metrics

LOG = "log.jsonl"
SHARE = 0.05  # of the time at most goes into rebuilding Parquet while a study runs


@dataclass
class _Walk:
    """What is known of one trial's way through the stream."""

    seed: int
    rows: dict[tuple[str, int], tuple[list[float], list[int]]] = field(default_factory=dict)
    losses: dict[int, dict[str, float]] = field(default_factory=dict)
    quality: dict[tuple[str, int], dict[str, list[float]]] = field(default_factory=dict)


class Record:
    """Single writer of a study's record.

    Opening a directory that has a log replays it, so that a study which was killed goes on where
    it was. Use it as a context manager, or call ``close``.

    Args:
        directory: of the study; made if it does not exist.
        study: its name.
        interval: seconds at least between two rebuilds of the Parquet files while events arrive.

    Raises:
        RecordError: if the directory cannot be written, holds the record of another study or of a
            newer schema, or if the log is damaged before its last line.
    """

    def __init__(self, directory: Path | str, study: str, interval: float = 3.0):
        self.directory, self.study, self.interval = Path(directory), study, interval
        self._walks: dict[int, _Walk] = {}
        self._trials: dict[int, dict[str, Any]] = {}
        self._next_rebuild, self._dirty = 0.0, True
        sound = self._replay()
        self._log = Log(self.directory / LOG, sound)
        try:
            if not sound:
                self._log.append(encode("open", schema=schema.SCHEMA_VERSION, study=study))
            self.flush()
        except BaseException:
            self._log.close()
            raise

    def task(
        self,
        trial_id: int,
        seed: int,
        task: int,
        accuracy: Mapping[str, Sequence[float] | np.ndarray],
        examples: Mapping[str, Sequence[int] | np.ndarray],
        losses: Mapping[str, float] | None = None,
        quality: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    ) -> None:
        """One trial learned one task, or was evaluated after it on one more split.

        Args:
            trial_id: number of the trial.
            seed: its own seed. Another seed than before starts the trial's walk anew.
            task: the task just learned, from 0.
            accuracy: split ("validation" or "test") -> the row A[task, :task + 1], fractions. May
                be empty, where a trial diverged and only its losses are known.
            examples: split -> how many examples of each of these tasks were evaluated.
            losses: term -> mean over the task's steps; may be NaN or infinite.
            quality: split -> measure (``trainables.engine.quality``) -> a number for each of these
                tasks, which may be NaN or infinite. On splits that ``accuracy`` has.

        Raises:
            ValueError: for an unknown split, rows that do not have ``task + 1`` entries, or numbers
                out of range; nothing is written then.
            RecordError: if the disk is full or not writable. What was there before stays whole.
        """
        line = encode(
            "task",
            trial_id=trial_id,
            seed=seed,
            task=task,
            accuracy=accuracy,
            examples=examples,
            losses=losses or {},
            quality=quality or {},
        )
        report = events.report(decode(line))  # checked first, and as a replay will read it
        self._log.append(line)
        self._learn(report)
        self.flush_if_due()

    def finish(self, trial_id: int, config: Mapping[str, Any], **columns: Any) -> None:
        """One trial ended; its events are on disk when this returns.

        Args:
            trial_id: number of the trial: from ``schema.FIRST_FINAL`` on in the final phase, from
                ``schema.FIRST_ABLATION`` on in an ablation.
            config: its configuration; becomes the columns ``config.<name>``.
            columns: the other columns of ``schema.TRIALS`` that are not derived. ``versions`` may
                be a mapping, ``started`` and ``finished`` are datetimes with a time zone. NaN
                becomes null. What was reported of tasks beyond ``tasks_learned`` does not count.

        Raises:
            ValueError: for an unknown or missing column, or a value of another type; nothing is
                written then.
            RecordError: if the disk is full or not writable. What was there before stays whole.
        """
        line = encode("finish", trial_id=trial_id, config=config, columns=columns)
        trial = events.trial(self.study, decode(line))
        self._log.append(line)
        self._log.sync()
        self._end(trial)
        self.flush_if_due()

    def trials(self) -> list[dict[str, Any]]:
        """Finished trials by ``trial_id``: the columns of trials.parquet, and ``config`` whole."""
        return [dict(self._trials[trial_id]) for trial_id in sorted(self._trials)]

    def rows(self, trial_id: int, split: str = "validation") -> list[list[float]]:
        """The rows A[0, :1], A[1, :2], ... of a trial, finished or not, up to the first gap."""
        walk, rows = self._walks.get(trial_id), []
        while walk and len(rows) < self._learned(trial_id) and (split, len(rows)) in walk.rows:
            rows.append(list(walk.rows[split, len(rows)][0]))
        return rows

    def row(
        self, trial_id: int, task: int, split: str = "validation"
    ) -> tuple[list[float], list[int]] | None:
        """The row A[task, :task + 1] of a trial and the examples of each task, if measured."""
        walk = self._walks.get(trial_id)
        return walk.rows.get((split, task)) if walk else None

    def quality(
        self, trial_id: int, task: int, split: str = "validation"
    ) -> dict[str, list[float]]:
        """What was measured of a trial's generator after a task, by measure; empty if nothing."""
        walk = self._walks.get(trial_id)
        return walk.quality.get((split, task), {}) if walk else {}

    def flush(self) -> None:
        """Bring the Parquet files up to date.

        Raises:
            RecordError: if the disk is full or not writable. The files stay as they were.
        """
        if not self._dirty:
            return
        began = time.monotonic()
        # Trials last: whoever finds a trial there finds its accuracies too.
        for name, build in (
            ("losses", self._losses),
            ("quality", self._qualities),
            ("accuracy", self._accuracies),
            ("trials", self._finished),
        ):
            path = self.directory / f"{name}.parquet"
            with writing(path):
                _replace(path, build())
        self._dirty = False
        now = time.monotonic()
        self._next_rebuild = now + max(self.interval, (now - began) * (1 / SHARE - 1))

    def flush_if_due(self) -> None:
        """``flush``, unless the last one was just now; worth a call while no events arrive."""
        if time.monotonic() >= self._next_rebuild:
            self.flush()

    def close(self) -> None:
        """Bring the Parquet files up to date, and end writing."""
        try:
            self.flush()
        finally:
            self._log.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def _replay(self) -> int:
        """Take in an existing log; returns the bytes of its complete lines."""
        found = lines(self.directory / LOG)
        for number, line in enumerate(found, 1):
            try:
                self._take(decode(line))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise RecordError(
                    f"{self.directory / LOG}, line {number} is damaged ({error!r}): remove the line"
                    " to go on without its event"
                ) from error
        return sum(map(len, found))

    def _take(self, event: dict[str, Any]) -> None:
        if event["event"] == "task":
            self._learn(events.report(event))
        elif event["event"] == "finish":
            self._end(events.trial(self.study, event))
        else:
            schema.check_version(self.directory / LOG, event["schema"])
            if event["study"] != self.study:
                raise RecordError(
                    f"{self.directory} holds the study {event['study']!r}, not {self.study!r}:"
                    " choose another --study-dir, or go on with it by --resume"
                )

    def _learn(self, report: events.Report) -> None:
        self._dirty = True
        walk = self._walks.get(report.trial_id)
        if walk is None or walk.seed != report.seed:
            walk = self._walks[report.trial_id] = _Walk(report.seed)
        for split, row in report.accuracy.items():
            walk.rows[split, report.task] = row, report.examples[split]
        for split, measures in report.quality.items():
            walk.quality[split, report.task] = measures
        if report.losses:
            walk.losses[report.task] = report.losses
        if trial := self._trials.get(report.trial_id):
            self._end(trial)

    def _end(self, trial: dict[str, Any]) -> None:
        self._dirty = True
        trial_id = trial["trial_id"]
        walk = self._walks.setdefault(trial_id, _Walk(trial["seed"]))
        self._trials[trial_id] = trial | _measure(walk, trial["tasks_learned"])

    def _learned(self, trial_id: int) -> float:
        """How many tasks of a trial count; all, while it runs."""
        trial = self._trials.get(trial_id)
        return trial["tasks_learned"] if trial else math.inf

    def _finished(self) -> pa.Table:
        trials = self.trials()
        values = {c.name: [trial[c.name] for trial in trials] for c in schema.TRIALS}
        configs = schema.config_columns([trial["config"] for trial in trials])
        values |= {column.name: cells for column, cells in configs.items()}
        return schema.table([*schema.TRIALS, *configs], values)

    def _accuracies(self) -> pa.Table:
        heads, cells, examples = [], [], []
        for trial_id, walk in sorted(self._walks.items()):
            learned = self._learned(trial_id)
            for (split, task), (row, sizes) in sorted(walk.rows.items()):
                if task < learned:
                    heads.append((trial_id, walk.seed, split, task))
                    cells += row
                    examples += sizes
        values = _row_cells(*_transposed(heads, 4)) | {"accuracy": cells, "examples": examples}
        return schema.table(schema.ACCURACY, values)

    def _qualities(self) -> pa.Table:
        heads, names, cells = [], [], []
        for trial_id, walk in sorted(self._walks.items()):
            learned = self._learned(trial_id)
            for (split, task), measures in sorted(walk.quality.items()):
                for name, row in measures.items() if task < learned else ():
                    heads.append((trial_id, walk.seed, split, task))
                    names += [name] * len(row)
                    cells += row
        values = _row_cells(*_transposed(heads, 4)) | {"measure": names, "value": cells}
        return schema.table(schema.QUALITY, values)

    def _losses(self) -> pa.Table:
        heads, terms, means = [], [], []
        for trial_id, walk in sorted(self._walks.items()):
            learned = self._learned(trial_id)
            for task, losses in sorted(walk.losses.items()):
                # The task in which a trial diverged has losses, but no accuracy.
                if task <= learned:
                    heads.append((trial_id, task, len(losses)))
                    terms += losses
                    means += losses.values()
        trial_id, task, times = (np.array(c, dtype=np.int64) for c in _transposed(heads, 3))
        values = {
            "trial_id": np.repeat(trial_id, times),
            "task": np.repeat(task, times),
            "term": terms,
            "value": means,
        }
        return schema.table(schema.LOSSES, values)


def _measure(walk: _Walk, tasks: int) -> dict[str, float | None]:
    """The derived columns: metrics of the leading block of ``A`` on validation data."""
    a, examples = np.full((tasks, tasks), np.nan), np.ones(tasks)
    for task in range(tasks):
        row, sizes = walk.rows.get(("validation", task), ([], []))
        a[task, : len(row)], examples[: len(row)] = row, sizes
    values = metrics.summary(a, examples) if tasks else {}
    derived = {c.name: values.get(c.name, math.nan) for c in schema.TRIALS if c.derived}
    return {name: None if math.isnan(value) else value for name, value in derived.items()}


def _row_cells(
    trial_id: Sequence[int], seed: Sequence[int], split: Sequence[str], task: Sequence[int]
) -> dict[str, Any]:
    """What names the cells of rows A[i, :i + 1], by column: one entry a row -> one a cell."""
    times = np.array(task, dtype=np.int64) + 1
    return {
        "trial_id": np.repeat(np.array(trial_id, dtype=np.int64), times),
        "seed": np.repeat(np.array(seed, dtype=np.int64), times),
        "split": np.repeat(np.array(split, dtype=object), times),
        "after_task": np.repeat(times - 1, times),
        "on_task": [on_task for after_task in task for on_task in range(after_task + 1)],
    }


def _transposed(rows: list[tuple], width: int) -> list[tuple]:
    """Rows as columns, also where there are none."""
    return list(zip(*rows, strict=True)) or [()] * width


def _replace(path: Path, table: pa.Table) -> None:
    """Put a Parquet file in the place of another in one step."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(sink.getvalue())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
