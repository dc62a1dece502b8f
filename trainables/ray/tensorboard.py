"""Scalars of every trial for TensorBoard, through tensorboardX."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from tensorboardX import SummaryWriter

from trainables.engine import metrics
from trainables.ray.names import OF_GENERATORS

SCALARS = {*metrics.SUMMARY, *OF_GENERATORS, "seconds", "memory_bytes"}


class TensorBoard(tune.Callback):
    """One run a trial under ``folder``: each report's metrics at the step ``tasks_learned``.

    A trial's file is written when it ends, all at once: a writer that is open costs a thread, and
    one that flushes costs more than a short task.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.reports: dict[int, list[dict[str, Any]]] = {}

    def on_trial_result(self, iteration, trials, trial, result, **info) -> None:
        number = trial.config["number"]
        self.reports.setdefault(number, []).append(result)
        if result.get("done"):
            self.write(number, self.reports.pop(number))

    def write(self, number: int, reports: Sequence[Mapping[str, Any]]) -> None:
        with SummaryWriter(str(self.folder / f"trial_{number:06d}")) as writer:
            for report in reports:
                for name, value in ours(report).items():
                    writer.add_scalar(name, value, report["tasks_learned"])


def ours(report: Mapping[str, Any]) -> dict[str, float]:
    """The finite scalars of a report that are the trial's, without those that Tune adds."""
    return {
        name: value
        for name, value in report.items()
        if (name in SCALARS or name.startswith(("acc/", "loss/"))) and math.isfinite(value)
    }
