"""The walk through a stream: with the toy of the packs' tests, and with a real method."""

import numpy as np
import pytest
import torch

from tests.conftest import EXACTLY, first_tasks
from tests.trainables.engine.test_packs import TRIALS, Hyper, by_hand, toy
from trainables import sequential
from trainables.engine.learn import learn, learn_task
from trainables.engine.packs import Engine


def walk(stream, trials, tasks=1):
    return learn(toy(stream.problem), first_tasks(stream, tasks), trials)


def test_every_trial_walks_on_by_itself_through_all_tasks(blobs):
    for walked, trial in zip(walk(blobs, TRIALS, tasks=3), TRIALS, strict=True):
        torch.testing.assert_close(walked.state, by_hand(*trial, blobs, 3))
        assert walked.diverged is None
        assert len(walked.losses) == 3


def test_learn_fills_the_lower_triangle_with_validation_accuracy(blobs):
    method = sequential.build(blobs.problem, sequential.Shape(hidden=8))
    (walked,) = learn(method, blobs, [(sequential.Hyper(steps=10), 0)])
    assert np.array_equal(np.isfinite(walked.accuracy), np.tri(3, dtype=bool))
    splits = [task.validation for task in blobs.tasks]
    rows = Engine(method, blobs.problem).evaluate([walked.state], splits, blobs.rivals(2))
    assert walked.accuracy[2].tolist() == rows[0].tolist()
    assert len(walked.losses) == 3


def test_a_walk_continued_from_its_states_is_the_same_walk(blobs):
    method = toy(blobs.problem)
    for (hyper, seed), walked in zip(TRIALS, walk(blobs, TRIALS, tasks=3), strict=True):
        one = Engine(method, blobs.problem).start(hyper, seed)
        for t in range(3):
            engine = Engine(method, blobs.problem)
            (done,) = learn_task(engine, [one], blobs.batch(t), t)
            one = one._replace(state=done.state)
            assert walked.losses[t] == pytest.approx(done.losses)
            rows = engine.evaluate(
                [one.state], [task.validation for task in blobs.tasks[: t + 1]], blobs.rivals(t)
            )
            assert walked.accuracy[t, : t + 1].tolist() == rows[0].tolist()
        torch.testing.assert_close(one.state, walked.state, **EXACTLY)


def test_a_diverged_trial_ends_and_the_others_go_on(blobs):
    trials = [TRIALS[0], (Hyper(a=40, b=70, keep=1e300), 1), TRIALS[1]]
    good, bad, other = walk(blobs, trials, tasks=2)
    assert bad.diverged is not None
    assert "task 0, phase a" in bad.diverged
    assert np.isnan(bad.accuracy).all()
    assert len(bad.losses) == 1
    for walked, trial in ((good, TRIALS[0]), (other, TRIALS[1])):
        (alone,) = walk(blobs, [trial], tasks=2)
        assert walked.diverged is None
        torch.testing.assert_close(walked.state, alone.state)
        assert np.array_equal(walked.accuracy, alone.accuracy, equal_nan=True)


def test_weights_that_are_not_finite_end_a_trial(blobs):
    trials = [(Hyper(a=3, poison=np.inf), 0), TRIALS[0]]
    bad, good = walk(blobs, trials, tasks=2)
    assert bad.diverged == "weights are not finite after task 0"
    assert np.isnan(bad.accuracy).all()
    assert good.diverged is None
    assert np.isfinite(good.accuracy[1, :2]).all()


def test_learn_stops_when_no_trial_is_left(blobs):
    (bad,) = walk(blobs, [(Hyper(a=3, poison=np.nan), 0)], tasks=3)
    assert len(bad.losses) == 1
    assert np.isnan(bad.accuracy).all()
