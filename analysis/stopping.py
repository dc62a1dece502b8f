"""Early stopping: who was stopped where, what early values said of the end, and what it may cost.

A rung is a number of tasks learned. Everything is computed on validation data of the search's
trials; tasks are counted from 1 here, as the scheduler does.
"""

import functools
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from analysis import look
from analysis.parameters import of_search
from analysis.reading import Study
from analysis.statistics import rank_correlation

OF_GENERATORS = ("cas", "explained_variance")  # metrics that trials are stopped by as they are
# As trainables/ray/scheduler.py has them, which may not be imported from here; a test compares.
CONTROL, CONTROL_SHARE, PEERS, KEEP = 1, 0.05, 5, 0.5


class Regret(NamedTuple):
    """What the control trials say about those that were stopped."""

    stopped: int  # trials of the search
    controls: list[int]  # trials that could not be stopped and came to the end
    doomed: list[int]  # of these, those that would have been stopped
    beat: int  # of these, those that ended above all other completed trials
    share: float  # beat / len(doomed): the chance that a stopped trial would have been the best
    low: float  # its 95 % interval (Clopper and Pearson); (0, 1) where nobody was doomed
    high: float
    loss: float  # best of the doomed − best of the others, at least 0; NaN where nobody was doomed


def rung_values(study: Study) -> pd.DataFrame:
    """What trials are compared by after each task, as the scheduler saw it.

    Returns:
        One row for each trial of the search, index ``trial_id``; one column for each number of
        tasks learned, from 1. Fractions: the accuracy retained on earlier tasks (NaN after the
        first), or the metric itself where that is of generators; NaN where it was not reached.

    Example:
        >>> rung_values(study).loc[38].round(2).tolist()
        [nan, 0.81, 0.75]
    """
    search = of_search(study.trials)
    metric = study.settings.get("metric")
    if metric in OF_GENERATORS:
        rows = study.quality[study.quality.measure == metric].merge(
            study.accuracy[["trial_id", "split", "after_task", "on_task", "examples"]],
            on=["trial_id", "split", "after_task", "on_task"],
        )
        rows = rows.assign(value=rows.value, weight=rows.examples)
    else:
        rows = study.accuracy[study.accuracy.on_task < study.accuracy.after_task]
        rows = rows.assign(value=rows.accuracy, weight=1.0)
    rows = rows[(rows.split == "validation") & rows.trial_id.isin(search.trial_id)]
    tasks = int(search.tasks_learned.max()) if len(search) else 0
    place = np.searchsorted(search.trial_id, rows.trial_id), rows.after_task
    sums, weights = np.zeros((2, len(search), tasks))
    np.add.at(weights, place, rows.weight)
    np.add.at(sums, place, rows.value * rows.weight)
    with np.errstate(invalid="ignore"):
        values = sums / weights
    return pd.DataFrame(values, index=search.trial_id, columns=range(1, tasks + 1))


def compared(study: Study) -> str:
    """What ``rung_values`` holds, in words.

    Example:
        >>> compared(study)
        'accuracy on earlier tasks'
    """
    metric = study.settings.get("metric")
    return look.name(metric) if metric in OF_GENERATORS else "accuracy on earlier tasks"


def rungs(
    study: Study, values: pd.DataFrame | None = None, confidence: float = 0.95
) -> pd.DataFrame:
    """Every task boundary before the end: who reached it, who was stopped, what it said of the end.

    Args:
        study: of ``analysis.load``.
        values: of ``rung_values``, if that has been computed.
        confidence: of the intervals, in (0, 1).

    Returns:
        Columns ``tasks`` (learned, from 1), ``reached`` and ``stopped`` (trials), ``completed``
        (trials of these that came to the end with a score), and ``correlation`` with ``low`` and
        ``high``: Spearman's between the value at that boundary and the score at the end, among the
        completed. NaN with fewer than two of them, or where one is constant; bounds need four.
        Trials that were stopped are not among them, so at a rung where many were the correlation
        over all trials is likely to be higher.

    Source:
        Interval by Fisher's transformation with the variance (1 + ρ²/2) / (n − 3) of Bonett and
        Wright, Psychometrika 2000.

    Example:
        >>> rungs(study)[["tasks", "reached", "stopped", "completed"]]
           tasks  reached  stopped  completed
        0      1       37        0          0
        1      2       37       13         24
    """
    search = of_search(study.trials)
    values = rung_values(study) if values is None else values
    score = search.set_index("trial_id").score.astype(float)
    ended = (search.status == "completed").to_numpy() & np.isfinite(score.to_numpy())
    stopped = search.tasks_learned[search.status == "stopped"].value_counts()
    rows = []
    for tasks in values.columns[:-1]:
        both = values.index[ended & np.isfinite(values[tasks].to_numpy())]
        rho = np.nan
        if len(both) > 1:
            rho = rank_correlation(values.loc[both, tasks].to_numpy(), score[both].to_numpy())
        reached = int((search.tasks_learned >= tasks).sum())
        low, high = _fisher(rho, len(both), confidence)
        rows.append((tasks, reached, int(stopped.get(tasks, 0)), len(both), rho, low, high))
    names = ["tasks", "reached", "stopped", "completed", "correlation", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def is_control(study: Study, trial_id: int) -> bool:
    """Whether the scheduler was bound to let a trial of the search run on, whatever its values.

    Example:
        >>> [n for n in range(40) if is_control(study, n)]
        [3, 11, 23, 27]
    """
    return _bound_to_run(int(study.settings.get("seed", 0)), trial_id)


@functools.cache
def _bound_to_run(seed: int, trial_id: int) -> bool:
    return bool(np.random.default_rng([seed, trial_id, CONTROL]).random() < CONTROL_SHARE)


def regret(study: Study, values: pd.DataFrame | None = None) -> Regret:
    """What stopping may have thrown away, estimated from the trials that it could not stop.

    A control trial would have been stopped where, at a rung, its value lies below the median of
    those of trials with smaller numbers, five at least. That is the scheduler's rule up to the
    order of arrival, which the record does not have; over 945 judgements of 19 studies it agrees
    with what was done to the other trials in 95 %.

    Args:
        study: of ``analysis.load``.
        values: of ``rung_values``, if that has been computed.

    Example:
        >>> found = regret(study)
        >>> found.stopped, found.controls
        (13, [23, 27])
    """
    search = of_search(study.trials)
    score = search.set_index("trial_id").score.astype(float)
    ended = score[(search.status == "completed").to_numpy() & np.isfinite(score.to_numpy())]
    stopped = search[search.status == "stopped"]
    controls = [int(n) for n in ended.index if is_control(study, int(n))]
    values = rung_values(study) if values is None else values
    where = sorted(set(stopped.tasks_learned) & set(values.columns[:-1]))
    doomed = [n for n in controls if any(_below(values, tasks, n) for tasks in where)]
    others = ended.drop(doomed)
    if not doomed or others.empty:
        return Regret(len(stopped), controls, doomed, 0, np.nan, 0.0, 1.0, np.nan)
    best = others.max()
    beat = int((ended[doomed] > best).sum())
    found = stats.binomtest(beat, len(doomed)).proportion_ci(0.95, "exact")
    loss = max(0.0, float(ended[doomed].max() - best))
    share = beat / len(doomed)
    return Regret(len(stopped), controls, doomed, beat, share, found.low, found.high, loss)


def _below(values: pd.DataFrame, tasks: int, trial_id: int) -> bool:
    """Whether a trial falls behind those before it at one rung."""
    rung, number = values[tasks].to_numpy(dtype=float), values.index.to_numpy()
    peers = rung[(number < trial_id) & np.isfinite(rung)]
    own = rung[number == trial_id]
    return bool(len(peers) >= PEERS and (own < np.quantile(peers, 1 - KEEP)).any())


def _fisher(rho: float, n: int, confidence: float) -> tuple[float, float]:
    if n < 4 or not np.isfinite(rho):
        return np.nan, np.nan
    if abs(rho) == 1:
        return rho, rho
    half = stats.norm.ppf((1 + confidence) / 2) * np.sqrt((1 + rho**2 / 2) / (n - 3))
    z = np.arctanh(rho)
    return float(np.tanh(z - half)), float(np.tanh(z + half))
