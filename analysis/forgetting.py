"""Forgetting, task by task: the accuracy matrix of a contender, with intervals over its seeds."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from analysis.parameters import scored
from analysis.reading import Study, label_of_winner


def runs_of(study: Study, label: str = "winner") -> list[int]:
    """The trials that stand for a contender of the final phase, those that came to the end.

    Args:
        study: of ``analysis.load``.
        label: "winner", "default", "sequential", "joint", or another label of the final phase,
            e.g. "trial 17".

    Returns:
        Numbers of trials, one a seed. For the winner of a study that has none yet, the best trial
        of the search, if there is one; where the contender is not in the record, nothing.

    Example:
        >>> runs_of(study, "default")
        [1000005, 1000006, 1000007, 1000008, 1000009]
    """
    if label == "winner":
        if study.best is None:
            best = scored(study.trials).nlargest(1, "score")
            return [int(n) for n in best.trial_id]
        label = label_of_winner(study.best)
    asked = "role == 'final' and status == 'completed' and label == @label"
    return [int(n) for n in study.trials.query(asked).trial_id]


def mean_matrix(
    study: Study, trial_ids: Sequence[int], split: str = "validation", confidence: float = 0.95
) -> pd.DataFrame:
    """The mean accuracy matrix of several runs, one row a cell.

    Args:
        study: of ``analysis.load``.
        trial_ids: of ``runs_of``.
        split: "validation", or "test", of which only the last row is known.
        confidence: of the interval, in (0, 1).

    Returns:
        Columns ``on_task``, ``after_task`` (both from 0, ascending in this order, so that a task's
        curve over time stands together), ``mean``, ``low``, ``high`` (fractions; Student's
        interval over the runs, as ``statistics.mean_interval``; NaN where there is one run) and
        ``seeds``, how many runs have the cell.

    Example:
        >>> cells = mean_matrix(study, runs_of(study)).query("on_task == 0")
        >>> cells[["after_task", "mean"]].round(2)
           after_task  mean
        0           0  0.93
        1           1  0.87
        2           2  0.80
    """
    chosen = list(trial_ids)  # noqa: F841
    rows = study.accuracy.query("trial_id in @chosen and split == @split")
    cells = rows.groupby(["on_task", "after_task"]).accuracy
    return _with_intervals(cells, confidence)


def by_task(study: Study, trial_ids: Sequence[int], confidence: float = 0.95) -> pd.DataFrame:
    """What is forgotten of each task on validation data, over several runs.

        f_j = max_{j≤i<T−1} A[i, j] − A[T−1, j]

    Returns:
        One row for each task but the last: ``on_task``; ``learned``, the mean accuracy just after
        it; ``last``, that after the last task; ``mean``, ``low``, ``high`` of f_j (fractions, lower
        is better, Student's interval, NaN where there is one run); ``seeds``.

    Source:
        Chaudhry et al., ECCV 2018, as ``trainables.engine.metrics.forgetting``, which is the mean
        over tasks of these.

    Example:
        >>> by_task(study, runs_of(study)).round(2)
           on_task  mean   low  high  seeds  learned  last
        0        0  0.13  0.12  0.14      5     0.93  0.80
        1        1  0.07  0.04  0.09      5     0.94  0.87
    """
    chosen = list(trial_ids)  # noqa: F841
    rows = study.accuracy.query("trial_id in @chosen and split == 'validation'")
    rows = rows.assign(end=rows.groupby("trial_id").after_task.transform("max"))
    cell = ["trial_id", "on_task"]
    last = rows.query("after_task == end and on_task < end").set_index(cell).accuracy
    best = rows.query("after_task < end").groupby(cell).accuracy.max()
    learned = rows.query("after_task == on_task").set_index(cell).accuracy
    forgotten = _with_intervals((best - last).groupby("on_task"), confidence)
    means = {"learned": learned, "last": last}
    means = {name: one.groupby("on_task").mean() for name, one in means.items()}
    return forgotten.join(pd.DataFrame(means), on="on_task")


def _with_intervals(groups, confidence: float) -> pd.DataFrame:
    """Mean and Student's interval of each group, as ``statistics.mean_interval``, at once."""
    found = groups.agg(mean="mean", spread="std", seeds="count").reset_index()
    n = found.seeds.to_numpy(dtype=float)
    with np.errstate(invalid="ignore"):
        t = np.where(n > 1, stats.t.ppf((1 + confidence) / 2, np.maximum(n - 1, 1)), np.nan)
    half = t * found.pop("spread") / np.sqrt(n)
    seeds = found.pop("seeds")
    return found.assign(low=found["mean"] - half, high=found["mean"] + half, seeds=seeds)
