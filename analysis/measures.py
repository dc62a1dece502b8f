"""Every metric of continual learning that a study's record has, for those that its end compares."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from rich.table import Table

from analysis import reading
from analysis.log import RecordError
from analysis.tables import per_cent, plain
from trainables.engine import metrics

# Name of each measure, in the order of the table, and what it is.
ABOUT = {
    "joint_accuracy": "of all examples after the last task",
    "average_accuracy": "mean over tasks after the last one",
    "average_incremental_accuracy": "mean over time of the joint accuracy so far",
    "learning_accuracy": "on each task just after it",
    "learning_curve_area": "LCA: on each task over its first 10 batches, task-aware",
    "task_aware_accuracy": "mean over tasks, each among its own classes",
    "task_gap": "task-aware minus average accuracy: what not knowing the task costs",
    "forgetting": "best minus last accuracy, Chaudhry et al. 2018",
    "forgetting_speed": "lost for each task learned since",
    "backward_transfer": "last minus first accuracy",
    "forward_transfer": "just before a task minus untrained, task-aware",
    "intransigence": "joint training's accuracy on each task minus its own, just after it",
    "seen_accuracy": "on classes learned, among all; mean over time",
    "unseen_accuracy": "on classes to come, among all; mean over time",
    "harmonic_mean": "of these two, each time; mean over time",
    "area_under_seen_unseen": "AUSUC; mean over time",
}


class Found(NamedTuple):
    """One contender's measures."""

    name: str
    seeds: int
    measured: Mapping[str, list[float]]  # measure -> one a seed, fractions


def read(directory: Path) -> list[Found]:
    """The measures of the winner, the default, the floor and the ceiling, on validation data.

    Raises:
        RecordError: if the study has not come to its end.

    Example:
        >>> [(one.name, one.seeds) for one in read(study.directory)]
        [('winner', 5), ('default', 5), ('sequential', 5), ('joint', 5)]
    """
    tables, best = reading.read(directory), reading.best(directory)
    ended = tables.trials.query("role == 'final' and status == 'completed'")
    runs = [(str(r["label"]), int(r["seed"]), int(r["trial_id"])) for r in ended.to_dict("records")]
    won = reading.label_of_winner(best)
    labels = {"winner": won, "default": "default", "sequential": "sequential", "joint": "joint"}
    if won == "default":
        del labels["winner"]
    references = {
        seed: np.diagonal(reading.matrix(tables.accuracy, trial_id)[0])
        for label, seed, trial_id in runs
        if label == "joint"
    }
    found = []
    for name, label in labels.items():
        rows = [of_trial(tables, n, references.get(seed)) for own, seed, n in runs if own == label]
        if rows:
            shared = [key for key in ABOUT if all(key in row for row in rows)]
            measured = {key: [row[key] for row in rows] for key in shared}
            found.append(Found(name, len(rows), measured))
    if not found:
        raise RecordError(f"no trial of the final phase of {directory} came to its end")
    return found


def of_trial(
    tables: reading.Tables, trial_id: int, reference: np.ndarray | None
) -> dict[str, float]:
    """The measures of one trial on validation data, those of ``ABOUT`` that it has.

    Args:
        reference: ``(T,)``, a*_k of ``metrics.intransigence``, if known.
    """
    accuracy, examples = reading.matrix(tables.accuracy, trial_id)
    found = metrics.summary(accuracy, examples)
    tasks = len(accuracy)
    if tasks > 1:
        found["forgetting_speed"] = float(metrics.forgetting_speed(accuracy))
    if reference is not None and len(reference) == tasks:
        found["intransigence"] = float(metrics.intransigence(accuracy, reference).mean())
    rows = last_rows(tables.quality, trial_id, tasks - 1)
    if "task_accuracy" in rows:
        found["task_aware_accuracy"] = float(rows["task_accuracy"].mean())
        found["task_gap"] = found["task_aware_accuracy"] - found["average_accuracy"]
    if "learning_curve_area" in rows:
        found["learning_curve_area"] = float(rows["learning_curve_area"].mean())
    if "zero_shot_accuracy" in rows and tasks > 1:
        before = np.zeros((tasks, tasks))  # only what stands just above the diagonal is looked at
        before[np.arange(tasks - 1), np.arange(1, tasks)] = rows["zero_shot_accuracy"][1:]
        transfer = metrics.forward_transfer(before, rows["untrained_accuracy"])
        found["forward_transfer"] = float(transfer)
    for name in metrics.ZERO_SHOT:
        if name in rows and tasks > 1:
            found[name] = float(rows[name][:-1].mean())  # after the last task nothing is to come
    return found


def last_rows(quality: pd.DataFrame, trial_id: int, after: int) -> dict[str, np.ndarray]:
    """Measure -> its numbers on validation data after a task, one for each task up to then."""
    asked = "trial_id == @trial_id and split == 'validation' and after_task == @after"
    rows = quality.query(asked).sort_values(by=["measure", "on_task"])
    return {str(name): part.to_numpy() for name, part in rows.groupby("measure").value}


def measures_table(found: list[Found]) -> Table:
    """A row for each measure, a column for each contender, in per cent."""
    table = plain(
        "All metrics, on validation data, %", "mean ± 95 % interval over fresh seeds (Student's t)"
    )
    table.add_column("")
    for one in found:
        table.add_column(f"{one.name} (n = {one.seeds})", justify="right")
    table.add_column("what it is")
    for name, about in ABOUT.items():
        if any(name in one.measured for one in found):
            cells = [per_cent(one.measured.get(name, [])) for one in found]
            table.add_row(name.replace("_", " "), *cells, about)
    return table
