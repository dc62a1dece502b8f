"""The hyperparameters of a search: their ranges, and the values that trials had, as numbers.

The record has a trial's configuration, not the space that it was drawn from. Whoever knows the
space passes it on: name -> Optuna's distribution. Without it a range is what trials had.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

Distribution = FloatDistribution | IntDistribution | CategoricalDistribution
Space = Mapping[str, Distribution]

DECADES = 2  # positive numbers that span more of them are taken to be searched by their logarithm


def of_search(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials of the search, in the order of their numbers.

    Example:
        >>> len(study.trials), len(of_search(study.trials))
        (60, 40)
    """
    return trials.loc[trials.role == "search"].sort_values(by="trial_id", ignore_index=True)


def scored(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials of the search that came to the end of the stream and have a finite score.

    Example:
        >>> len(of_search(study.trials)), len(scored(study.trials))
        (40, 24)
    """
    search = of_search(trials)
    finite = np.isfinite(search.score.to_numpy(dtype=float))
    return search.loc[finite & (search.status == "completed").to_numpy()]


def top(trials: pd.DataFrame) -> pd.DataFrame:
    """The best tenth of ``scored``, but five of them at least.

    Example:
        >>> len(scored(study.trials)), len(top(study.trials))
        (24, 5)
    """
    ended = scored(trials)
    return ended.nlargest(max(5, len(ended) // 10), "score")


def configurations(trials: pd.DataFrame) -> pd.DataFrame:
    """The columns ``config.<name>`` without that prefix, those that some trial has a value in.

    Example:
        >>> configurations(study.trials).columns[:2].tolist()
        ['classifier_beta1', 'classifier_lr']
    """
    found = trials.filter(regex=r"^config\.").dropna(axis=1, how="all")
    return found.set_axis([name.removeprefix("config.") for name in found], axis=1)


def searched(trials: pd.DataFrame, space: Space | None = None) -> dict[str, Distribution]:
    """The range of every parameter that was searched.

    Args:
        trials: of ``analysis.load``; those of the search are looked at.
        space: name -> distribution, if known. A range is widened where a trial lies outside it,
            since a space may have changed since the search.

    Returns:
        Name -> distribution. Without ``space`` the range is that of the values that trials had,
        positive numbers over more than two decades on a logarithmic scale; a parameter of a single
        value is left out, since it was held.

    Example:
        >>> searched(study.trials)["order"].choices
        ('classifier_first', 'interleaved', 'vae_first')
    """
    if space is not None:
        trials = trials.filter(["role", "trial_id", *(f"config.{name}" for name in space)])
    values = dict(configurations(of_search(trials)).items())
    if space is None:
        guessed = {str(name): _guess(column) for name, column in values.items()}
        return {name: one for name, one in guessed.items() if not one.single()}
    return {n: _widened(one, values[n].dropna()) for n, one in space.items() if n in values}


def codes(values: Iterable[Any], distribution: Distribution) -> np.ndarray:
    """Values as numbers on the scale on which they are searched.

    Args:
        values: ``(n,)`` of one parameter, as in ``configurations``.
        distribution: of ``searched``.

    Returns:
        ``(n,)`` floats: the place of a choice among the choices, the natural logarithm where the
        scale is logarithmic, else the number itself; NaN where a trial does not have the parameter.

    Example:
        >>> codes([0.01, 1.0, None], FloatDistribution(0.01, 1.0, log=True)).round(2)
        array([-4.61,  0.  ,   nan])
        >>> codes(["b", "a"], CategoricalDistribution(["a", "b"]))
        array([1., 0.])
    """
    if isinstance(distribution, CategoricalDistribution):
        # The record has JSON where choices are of several kinds.
        place = {_plain(choice): i for i, choice in reversed([*enumerate(distribution.choices)])}
        place = {_text(choice): i for choice, i in place.items()} | place
        which, different = pd.factorize(pd.Series(values, dtype=object))
        places = [*(place.get(_plain(value), np.nan) for value in different), np.nan]
        return np.array(places, dtype=float)[which]  # the last, −1, where there is no value
    numbers = _numbers(values)
    return np.log(numbers) if distribution.log else numbers


def bounds(distribution: Distribution) -> tuple[float, float]:
    """The ends of a range as ``codes`` has it, half a step beyond the first and last whole number.

    Uniform draws between them are what a random search draws.

    Example:
        >>> bounds(IntDistribution(1, 8))
        (0.5, 8.5)
    """
    if isinstance(distribution, CategoricalDistribution):
        return -0.5, len(distribution.choices) - 0.5
    half = (distribution.step or 0) / 2
    low, high = distribution.low - half, distribution.high + half
    return (float(np.log(low)), float(np.log(high))) if distribution.log else (low, high)


def _guess(values: pd.Series) -> Distribution:
    known = values.dropna()
    if known.map(lambda v: isinstance(v, (bool, np.bool_, str))).any():
        return CategoricalDistribution(sorted({_plain(v) for v in known}, key=str))
    low, high = float(known.min()), float(known.max())
    if (known == known.round()).all() and max(abs(low), abs(high)) < 2**53:
        return IntDistribution(int(low), int(high))
    return FloatDistribution(low, high, log=low > 0 and high / low > 10**DECADES)


def _widened(distribution: Distribution, known: pd.Series) -> Distribution:
    if isinstance(distribution, CategoricalDistribution):
        known = known.drop_duplicates()
        found = zip(known, codes(known, distribution), strict=True)
        new = {_plain(value) for value, code in found if np.isnan(code)}
        return CategoricalDistribution([*distribution.choices, *sorted(new, key=str)])
    numbers = _numbers(known)
    low = min(distribution.low, numbers.min(initial=np.inf, where=np.isfinite(numbers)))
    high = max(distribution.high, numbers.max(initial=-np.inf, where=np.isfinite(numbers)))
    if (low, high) == (distribution.low, distribution.high):
        return distribution
    log = distribution.log and low > 0
    if isinstance(distribution, IntDistribution) and (numbers == np.round(numbers)).all():
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(float(low), float(high), log=log)


def _numbers(values: Iterable[Any]) -> np.ndarray:
    """``(n,)`` floats, NaN for what is missing or no number."""
    if isinstance(values, pd.Series) and values.dtype.kind in "fiu":
        return values.to_numpy(dtype=float)
    known = (int, float, np.number)
    return np.array([v if isinstance(v, known) else np.nan for v in values], dtype=float)


def _plain(value):
    """A NumPy scalar as Python has it."""
    return value.item() if isinstance(value, np.generic) else value


def _text(value) -> str:
    return value if isinstance(value, str) else json.dumps(value)
