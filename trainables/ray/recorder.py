"""Tune's events as rows of the study's record, written by the driver as they arrive."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ray import tune

from analysis.store import Record


def status_of(result: Mapping[str, Any], tasks: int) -> str:
    """What became of a trial, from its last report: "completed", "stopped" or "failed"."""
    if result.get("failure") is not None:
        return "failed"
    return "completed" if result.get("tasks_learned") == tasks else "stopped"


class Recorder(tune.Callback):
    """Writes every task learned and every trial ended; forgets a trial's checkpoint with its end.

    A trial is entered before the searcher hears of its end: whatever the journal calls finished
    has its row.

    Args:
        record: of the study.
        columns: what all rows share (method, benchmark, versions, ...).
        examples: validation examples of each task.
        metric: name of the score.
        why: number of a trial -> the scheduler's reason for stopping it.
    """

    def __init__(
        self,
        record: Record,
        columns: Mapping[str, Any],
        examples: Sequence[int],
        metric: str,
        why: Callable[[int], str | None],
    ):
        self.record, self.columns, self.examples = record, columns, list(examples)
        self.metric, self.why = metric, why
        self.started: dict[int, datetime] = {}

    def __getstate__(self) -> dict:
        """Tune pickles its callbacks for a restore that we do not use: our state is on disk."""
        return {}

    def on_trial_start(self, iteration, trials, trial, **info) -> None:
        self.started.setdefault(trial.config["number"], datetime.now(UTC))

    def on_trial_result(self, iteration, trials, trial, result, **info) -> None:
        enter_tasks(self.record, trial.config["number"], result, self.examples)
        if result.get("done"):
            self.enter(trial, result)

    def on_trial_error(self, iteration, trials, trial, **info) -> None:
        """The trial's process died more often than it may."""
        learned = len(self.record.rows(trial.config["number"]))
        lost = {"failure": "its process died again and again", "tasks_learned": learned}
        self.enter(trial, (trial.last_result or {}) | lost)

    def enter(self, trial, result: Mapping[str, Any]) -> None:
        """The row of a trial that ended."""
        number, config = trial.config["number"], trial.config["hyper"]
        status = status_of(result, len(self.examples))
        reason = {"failed": result.get("failure"), "stopped": self.why(number)}.get(status)
        self.record.finish(
            number,
            config,
            role="search",
            seed=result.get("seed", 0),
            status=status,
            reason=reason,
            score=result.get(self.metric) if status == "completed" else None,
            metric=self.metric,
            tasks_learned=result["tasks_learned"],
            seconds=result.get("seconds"),
            memory_bytes=result.get("memory_bytes"),
            lanes=result.get("lanes", 1),
            started=self.started.get(number),
            finished=datetime.now(UTC),
            **self.columns,
        )
        checkpoint_file(trial.config["checkpoints"], number).unlink(missing_ok=True)


def checkpoint_file(folder: str | Path, number: int) -> Path:
    """Where trial ``number`` saves itself."""
    return Path(folder) / f"{number:06d}.safetensors"


def enter_tasks(
    record: Record, number: int, report: Mapping[str, Any], examples: Sequence[int]
) -> None:
    """Write those tasks of a trial's history that the record does not hold yet."""
    history = json.loads(report.get("history", '{"accuracy": [], "quality": [], "losses": []}'))
    rows = history["accuracy"]
    for t in range(len(record.rows(number)), len(rows)):
        record.task(
            number,
            report["seed"],
            t,
            {"validation": rows[t]},
            {"validation": list(examples[: t + 1])},
            history["losses"][t],
            {"validation": history["quality"][t]},
        )
    if len(history["losses"]) > len(rows):  # it diverged in the task after the last row
        record.task(number, report["seed"], len(rows), {}, {}, history["losses"][-1])
