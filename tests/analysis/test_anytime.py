"""Anytime curves of hand-made searches."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from analysis import anytime
from analysis.tunability import expected_best
from tests.analysis.studies import study
from trainables.ray import searcher

BEGAN = datetime(2026, 11, 20, tzinfo=UTC)


def ended(hours, **trial):
    times = {"started": BEGAN, "finished": BEGAN + timedelta(hours=hours)}
    return {"seconds": 10.0} | times | trial


def test_the_best_so_far_goes_by_the_order_in_which_trials_ended():
    made = study(
        [
            ended(4, score=0.9),
            ended(1, status="stopped", tasks_learned=2),
            ended(2, score=0.5),
            ended(3, score=0.4, seconds=None),
            ended(0.5, status="failed", score=0.95, tasks_learned=0),
            ended(5, score=0.99, role="final"),
        ]
    )
    curve = anytime.best_so_far(made)
    assert curve.trial_id.tolist() == [4, 1, 2, 3, 0]
    assert curve.trials.tolist() == [1, 2, 3, 4, 5]
    assert curve.tasks_trained.tolist() == [0, 2, 5, 8, 11]
    assert curve.seconds.tolist() == [10, 20, 30, 30, 40]
    assert curve.hours.tolist() == pytest.approx([0.5, 1, 2, 3, 4])
    np.testing.assert_equal(curve.score.to_numpy(), [np.nan, np.nan, 0.5, 0.5, 0.9])


def test_a_search_without_times_goes_by_number_and_an_empty_one_is_empty():
    curve = anytime.best_so_far(study([{"score": 0.2}, {"score": 0.1}, {"score": 0.3}]))
    assert curve.score.tolist() == [0.2, 0.2, 0.3] and curve.hours.isna().all()
    assert anytime.best_so_far(study()).empty
    assert anytime.random_reference(study()) is None


def test_what_was_drawn_at_random_is_what_the_searcher_draws_at_random():
    made = study([{"score": 0.1}] * 60)
    assert anytime.drawn_at_random(made).trial_id.tolist() == list(range(1, searcher.STARTUP))
    for name, last in (("random", 59), ("qmc", 59), ("nsga2", 49), ("gp", 9), ("cmaes", 9)):
        drawn = anytime.drawn_at_random(made._replace(settings={"sampler": name})).trial_id
        assert (drawn.min(), drawn.max()) == (1, last)
    for number in (searcher.STARTUP - 1, searcher.STARTUP):
        random = isinstance(searcher.make_sampler("tpe", 0, number, ["lr"]), searcher.ByName)
        assert random == (number < searcher.STARTUP)


def test_random_search_is_judged_by_its_own_trials_alone():
    stopped = {"status": "stopped", "tasks_learned": 1, "seconds": 2.0, "score": 0.99}
    drawn = [{"score": s, "seconds": 4.0} for s in (0.1, 0.5, 0.3, 0.2, 0.4)]
    made = study([{"score": 0.9}, *drawn, stopped, *[stopped] * 3, {"score": 0.8}])
    found = anytime.random_reference(made)
    assert found is not None
    scores = [0.1, 0.5, 0.3, 0.2, 0.4, *[np.nan] * 4]
    assert found.score.tolist() == expected_best(scores)["mean"].tolist()
    assert found.score.max() == 0.5 and found.trials.tolist() == list(range(1, 10))
    assert found.tasks_trained.iloc[-1] == pytest.approx(5 * 3 + 4 * 1)
    assert found.seconds.iloc[-1] == pytest.approx(5 * 4 + 4 * 2)
    assert anytime.random_reference(study([{"score": 0.9}, *drawn[:4]])) is None
