"""Which hyperparameters to fix, and at what; which to hold, since they do next to nothing."""

import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis import look
from analysis.importance import FANOVA, PED_ANOVA
from analysis.parameters import top
from analysis.reading import Study

IDLE = 0.1  # of the variance, at most what a knob explains that may as well be held
SLIGHT = 0.05  # of either measure: what has less is not among the first, however sure it is


class Knob(NamedTuple):
    """A hyperparameter, and what to set it to."""

    name: str
    value: Any
    tops: str  # values of the best tenth of the trials
    ped_anova: float  # its share of what the best trials have in common, a fraction
    fanova: float  # its share of the score's variance over the space
    at_most: float  # the upper end of that share's 95 % interval
    sure: bool  # more than chance by both measures, or by one with its whole interval


class Knobs(NamedTuple):
    """Which hyperparameters to set with care, and which to leave alone."""

    matter: list[Knob]  # more than chance by a measure or two, the largest effect first
    idle: list[Knob]  # no more than chance by either, and at most IDLE of the variance


def knobs(study: Study, importance: pd.DataFrame, most: int | None = 3) -> Knobs:
    """The answer to "which knobs should I fix, and at what?".

    An effect is the larger of a knob's two shares. One that is beyond doubt goes before larger ones
    that are not, unless it is slight.

    Args:
        study: with completed trials.
        importance: ``importance.importances``.
        most: of each kind; None for all.

    Returns:
        Knobs at the winner's values, or those of the best trial while there is no winner.

    Example:
        >>> from analysis.importance import importances
        >>> [knob.name for knob in knobs(study, importances(study)).matter]
        ['classifier_rehearsal']
    """
    best = top(study.trials)
    own = study.best["config"] if study.best else {}
    if study.best is None and len(best):
        row = best.to_dict("records")[0]
        own = {name: row.get(f"config.{name}") for name in importance.name}
    matter, idle = [], []
    for name, rows in importance.groupby("name", sort=False):
        value, by = own.get(str(name)), rows.set_index("method")
        if value is None or value != value:
            continue
        above = by["mean"] > by.noise
        knob = Knob(
            str(name),
            value,
            among(pd.Series(best[f"config.{name}"]).dropna()),
            *by["mean"].reindex([PED_ANOVA, FANOVA], fill_value=0.0),
            at_most=by.high.reindex([FANOVA], fill_value=0.0).item(),
            sure=bool(above.sum() > 1 or (by.low > by.noise).any()),
        )
        if above.any():
            matter.append(knob)
        elif knob.at_most <= IDLE:
            idle.append(knob)
    matter.sort(key=lambda knob: (not knob.sure or effect(knob) < SLIGHT, -effect(knob)))
    idle.sort(key=lambda knob: knob.at_most)
    return Knobs(matter[:most], idle[:most])


def effect(knob: Knob) -> float:
    """The larger of a knob's two shares."""
    return max(knob.ped_anova, knob.fanova)


def among(values: pd.Series) -> str:
    """The values of several trials: the middle half of numbers, the most common choice."""
    if values.empty:
        return "n/a"
    if values.map(lambda value: isinstance(value, str | bool | np.bool_)).any():
        counts = values.map(look.value).value_counts()
        return f"{counts.index[0]} ({counts.iloc[0]} of {len(values)})"
    low, high = (look.value(float(end)) for end in values.astype(float).quantile([0.25, 0.75]))
    return low if low == high else f"{low} to {high}"


def held(fixed: Sequence[Knob]) -> str:
    """Options of run_search.py that hold hyperparameters: `` --fix vae_lr=0.00121``."""
    return "".join(f" --fix {knob.name}={shlex.quote(look.value(knob.value))}" for knob in fixed)
