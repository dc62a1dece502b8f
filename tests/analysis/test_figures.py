"""What figures show: the numbers they are given, and how many trials they leave out."""

import numpy as np
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from analysis import figures, figures_comparison, figures_knobs


def cells():
    """A[i, j] of two tasks, from two seeds, the first cell from one."""
    rows = [(0, 0, 0.9, np.nan, np.nan), (0, 1, 0.5, 0.4, 0.6), (1, 1, 0.8, 0.7, 0.9)]
    return pd.DataFrame(rows, columns=["on_task", "after_task", "mean", "low", "high"])


def test_a_heat_map_has_the_matrix_in_per_cent_and_its_intervals():
    heat = figures.accuracy_matrix(cells(), "a", "2 seeds").data[0]
    np.testing.assert_allclose(heat.z, [[90, np.nan], [50, 80]], rtol=1e-6)
    assert heat.customdata.tolist() == [["n/a", "n/a"], ["40.0 to 60.0", "70.0 to 90.0"]]
    assert heat.text.tolist() == [["90", ""], ["50", "80"]]


def test_a_curve_of_forgetting_has_bars_where_an_interval_is_known():
    first, second = figures.forgetting_curves(cells(), "a", "2 seeds").data
    np.testing.assert_allclose(first.y, [90, 50])
    np.testing.assert_allclose(first.error_y.array, [0, 10], rtol=1e-6)
    assert [*second.x] == [1]


def test_a_sample_keeps_the_best_and_says_so():
    rng = np.random.default_rng(0)
    trials = pd.DataFrame({"score": rng.random(5000)})
    kept, words = figures.sample(trials)
    assert len(kept) == figures.MOST and kept.index.is_monotonic_increasing
    assert {*trials.score.nlargest(figures.BEST).index} <= {*kept.index}
    assert words == "1,000 of 5,000 trials: the best 200 and 800 at random"
    assert figures.sample(trials.head(3))[1] == "3 trials"


@pytest.mark.parametrize(
    ("distribution", "texts"),
    [
        (FloatDistribution(1e-4, 1.0, log=True), ["0.0001", "0.001", "0.01", "0.1", "1"]),
        (IntDistribution(1, 3), ["1", "2", "3"]),
        (CategoricalDistribution([True, "a"]), ["true", "a"]),
    ],
)
def test_an_axis_of_a_hyperparameter_has_the_values_as_marks(distribution, texts):
    assert figures_knobs.ticks(distribution)[1] == texts


def test_the_best_so_far_is_a_step_curve_to_the_last_trial():
    curve = pd.DataFrame(
        {"trial_id": range(4), "trials": [1, 2, 3, 4], "score": [0.5, 0.5, 0.7, 0.7]}
    )
    trials = pd.DataFrame({"trial_id": range(4), "score": [0.5, 0.1, 0.7, np.nan]})
    figure = figures.best_so_far(curve, trials, None, "trials", "joint_accuracy")
    dots, steps = figure.data
    assert [*steps.x] == [1, 3, 4] and steps.line.shape == "hv"
    np.testing.assert_allclose(steps.y, [50, 70, 70])
    assert len(dots.x) == 3 and "3 trials with a score, of 4" in figure.layout.title.subtitle.text


def test_what_a_configuration_lacks_lies_below_the_axis():
    ranges = {"a": FloatDistribution(0.0, 1.0)}
    trials = pd.DataFrame({"score": [0.2, 0.4], "config.a": [0.5, np.nan]})
    (drawn,) = figures_knobs.parallel_coordinates(trials, ranges, "joint_accuracy").data
    _, axis = drawn.dimensions
    assert [*axis["values"]] == pytest.approx([0.5, -0.15])
    assert (axis.ticktext[0], axis.range[0]) == ("none", pytest.approx(-0.15))


def test_methods_that_do_not_differ_are_joined_by_a_bar():
    from analysis.ranks import compare

    rng = np.random.default_rng(0)
    scores = pd.DataFrame({"a": rng.random(6) + 5, "b": rng.random(6), "c": rng.random(6)})
    found = compare(scores)
    drawn = figures_comparison.critical_difference(found, "seed")
    bars = [one for one in drawn.data if one.mode == "lines"]
    assert [bar.x[0] for bar in bars[: len(found.cliques)]] == [
        found.average[clique[0]] for clique in found.cliques
    ]
