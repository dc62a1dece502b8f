"""How sure a result over a few seeds is."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Interval(NamedTuple):
    """A mean and where the true one lies with the confidence asked for."""

    mean: float
    low: float
    high: float
    n: int  # independent values behind it

    @property
    def half(self) -> float:
        """Half the width, the number after ±."""
        return (self.high - self.low) / 2


def mean_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Interval:
    """Student's interval for the mean of independent values, such as one metric over seeds.

        x̄ ± t_{n−1}((1 + c)/2) · s/√n,   s² = Σ (x_i − x̄)² / (n − 1)

    Args:
        values: ``(n,)`` finite floats, one a seed. A seed that has no value must not be left out in
            silence, so NaN is refused.
        confidence: c in (0, 1).

    Returns:
        The interval, in the unit of ``values``. With n = 1 it is the whole line, (−∞, ∞): one
        value says nothing about the spread. Accuracies near 0 or 1 may give bounds outside [0, 1].

    Raises:
        ValueError: if ``values`` is empty, not one-dimensional or not finite, or ``confidence`` is
            out of range.

    Source:
        Student, "The probable error of a mean", Biometrika 1908. It assumes that values are
        normal; with few seeds nothing better can be checked.

    Example:
        >>> [round(x, 2) for x in mean_interval([0.8, 0.9, 1.0])]
        [0.9, 0.65, 1.15, 3]
    """
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
        raise ValueError(f"expected (n,) finite values with n >= 1, got {values}")
    if not 0 < confidence < 1:
        raise ValueError(f"expected a confidence in (0, 1), got {confidence}")
    n, mean = len(x), float(x.mean())
    if n == 1:
        return Interval(mean, -np.inf, np.inf, 1)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * x.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def paired_difference(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, confidence: float = 0.95
) -> Interval:
    """Interval for the mean of a − b, where both were measured on the same seeds.

    What a seed does to both (its class order, its split) cancels, so the interval is narrower than
    what the two single ones suggest.

    Args:
        a, b: ``(n,)`` finite floats; entry ``i`` of both belongs to the same seed.
        confidence: in (0, 1).

    Returns:
        The interval; ``a`` is better by a margin outside it where ``low > 0``.

    Raises:
        ValueError: if lengths differ, and as ``mean_interval``.

    Example:
        >>> [round(x, 2) for x in paired_difference([0.9, 0.8, 0.7], [0.8, 0.7, 0.5])]
        [0.13, -0.01, 0.28, 3]
    """
    if len(a) != len(b):
        raise ValueError(f"expected as many values in both, got {len(a)} and {len(b)}")
    return mean_interval(np.asarray(a, dtype=float) - np.asarray(b, dtype=float), confidence)


def rank_correlation(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Spearman's ρ: does an early score order the trials as the final one does?

        ρ = correlation of the ranks of x with the ranks of y, ties sharing their mean rank

    Args:
        x, y: ``(n,)`` finite floats, n >= 2; entry ``i`` of both belongs to the same trial.

    Returns:
        ρ in [−1, 1], or NaN where x or y is constant: then there is no order to agree with.

    Raises:
        ValueError: if lengths differ, ``n < 2``, or a value is not finite.

    Source:
        Spearman, American Journal of Psychology 1904.

    Example:
        >>> round(rank_correlation([1, 2, 3, 4], [10, 20, 40, 30]), 3)
        0.8
    """
    both = [np.asarray(values, dtype=float) for values in (x, y)]
    if len(x) != len(y) or len(x) < 2 or not all(np.isfinite(v).all() for v in both):
        raise ValueError(f"expected as many finite values in both, at least 2, got {x} and {y}")
    if any(np.ptp(values) == 0 for values in both):
        return float("nan")
    return float(stats.spearmanr(*both).statistic)  # pyright: ignore
