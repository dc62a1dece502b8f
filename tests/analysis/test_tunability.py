"""The expected best of n against enumeration, closed forms and coverage; fronts against pairs."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from analysis.tunability import expected_best, pareto_front


@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_the_curve_is_the_mean_over_all_subsets(n):
    scores = np.random.default_rng(0).normal(size=7)
    scores[3] = scores[5]
    by_hand = np.mean([max(subset) for subset in combinations(scores, n)])
    assert expected_best(scores).set_index("n")["mean"][n] == pytest.approx(by_hand, rel=1e-12)


def test_trials_without_a_score_count_and_never_win():
    found = expected_best([0.2, np.nan, 0.6, -np.inf])["mean"].tolist()
    assert found == pytest.approx(expected_best([0.2, 0.2, 0.6, 0.2])["mean"].tolist())


def test_it_is_unbiased_and_its_interval_covers_up_to_half_of_the_trials():
    """Of uniform scores the best of n is n / (n + 1) on average."""
    rng = np.random.default_rng(1)
    curves = pd.concat(expected_best(rng.random(40), 20, seed=k) for k in range(150))
    for n in (2, 5, 20):
        found, truth = curves.query("n == @n"), n / (n + 1)
        off = found["mean"] - truth
        assert abs(off.mean()) < 4 * off.std() / np.sqrt(len(off))
        covered = float(((found.low <= truth) & (truth <= found.high)).mean())
        assert 0.86 <= covered <= 0.98


def test_a_long_curve_is_thinned_and_keeps_its_ends():
    scores = np.random.default_rng(0).random(3000)
    curve = expected_best(scores, 2500)
    assert len(curve) <= 100 and curve.n.iloc[[0, -1]].tolist() == [1, 2500]
    assert curve["mean"].is_monotonic_increasing and curve["mean"][0] == pytest.approx(
        scores.mean()
    )
    assert (curve.low <= curve["mean"]).all() and (curve["mean"] <= curve.high).all()


@pytest.mark.parametrize("bad", [([],), ([np.nan],), ([1.0], 0), ([1.0], None, 1.0)])
def test_what_makes_no_sense_is_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        expected_best(*bad)


def test_a_front_is_what_no_other_row_beats():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.integers(0, 30, (80, 3)).astype(float), columns=["up", "down", "low"])
    frame.loc[3, "down"] = np.nan
    frame.loc[5] = frame.loc[7]
    value = frame.assign(up=-frame.up).to_numpy()

    def beaten(i):
        return any(
            (value[j] <= value[i]).all() and (value[j] < value[i]).any() for j in range(len(value))
        )

    expected = [not np.isnan(value[i]).any() and not beaten(i) for i in range(len(value))]
    assert pareto_front(frame, ["up"], ["down", "low"]).tolist() == expected
    assert 3 < sum(expected) < 40
    with pytest.raises(ValueError, match="expected some of the columns"):
        pareto_front(frame, ["speed"])
