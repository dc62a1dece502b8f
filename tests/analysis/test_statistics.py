"""Intervals and correlations against closed forms, SciPy and simulation."""

import doctest
import math

import numpy as np
import pytest
from scipy import stats

from analysis import statistics
from analysis.statistics import mean_interval, paired_difference, rank_correlation


def test_examples_in_the_docstrings():
    results = doctest.testmod(statistics)
    assert (results.failed, results.attempted) == (0, 3)


def test_interval_of_two_values_in_closed_form():
    # With one degree of freedom t is Cauchy: its 97.5 % point is tan(0.475 π). s/√2 is |a − b|/2.
    interval = mean_interval([1.0, 4.0])
    assert interval.mean == 2.5
    assert interval.half == pytest.approx(1.5 * math.tan(0.475 * math.pi))
    assert interval.n == 2


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_interval_agrees_with_scipy(confidence):
    x = np.random.default_rng(0).normal(size=7)
    expected = stats.ttest_1samp(x, 0).confidence_interval(confidence)
    interval = mean_interval(x, confidence)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_interval_covers_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(1).normal(3.0, 2.0, size=(4000, 5))
    intervals = [mean_interval(x) for x in draws]
    share = np.mean([i.low <= 3.0 <= i.high for i in intervals])
    assert share == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / 4000))


def test_one_value_has_the_whole_line():
    assert mean_interval([0.9]) == (0.9, -math.inf, math.inf, 1)


def test_equal_values_have_no_width():
    assert mean_interval([0.5, 0.5, 0.5]) == (0.5, 0.5, 0.5, 3)


@pytest.mark.parametrize("values", [[], [0.5, math.nan], [0.5, math.inf], [[0.5, 0.6]]])
def test_values_must_be_finite_and_in_a_row(values):
    with pytest.raises(ValueError, match="finite values"):
        mean_interval(values)


def test_confidence_is_a_probability():
    with pytest.raises(ValueError, match=r"got 95"):
        mean_interval([0.5, 0.6], 95)


def test_paired_difference_is_the_paired_test():
    rng = np.random.default_rng(2)
    seeds = rng.normal(size=6)  # what the seed does to both
    a, b = seeds + 0.3 + 0.1 * rng.normal(size=6), seeds
    expected = stats.ttest_rel(a, b).confidence_interval()
    difference = paired_difference(a, b)
    assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))
    assert difference.low > 0
    assert difference.half < mean_interval(a).half
    with pytest.raises(ValueError, match="got 2 and 1"):
        paired_difference([1, 2], [1])


def test_rank_correlation_without_ties_in_closed_form():
    x, y = [1.0, 2.0, 3.0, 4.0, 5.0], [0.2, 0.1, 0.3, 0.5, 0.4]
    squares = 1 + 1 + 0 + 1 + 1  # of differences of ranks
    assert rank_correlation(x, y) == pytest.approx(1 - 6 * squares / (5 * (25 - 1)))
    assert rank_correlation(x, np.exp(x)) == pytest.approx(1)
    assert rank_correlation(x, [-v for v in x]) == pytest.approx(-1)


def test_rank_correlation_with_ties_agrees_with_scipy():
    x, y = np.random.default_rng(3).integers(0, 5, size=(2, 40))
    assert rank_correlation(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)


def test_rank_correlation_of_a_constant_is_undefined():
    assert math.isnan(rank_correlation([1, 1, 1], [1, 2, 3]))


@pytest.mark.parametrize(("x", "y"), [([1, 2], [1]), ([1], [1]), ([1, math.nan], [1, 2])])
def test_rank_correlation_needs_pairs(x, y):
    with pytest.raises(ValueError, match="at least 2"):
        rank_correlation(x, y)
