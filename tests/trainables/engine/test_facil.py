"""FACIL's choices, made again one by one."""

import numpy as np
import pytest

from tests.conftest import tiny
from trainables import ewc
from trainables.engine import facil
from trainables.engine.learn import learn_task
from trainables.engine.packs import Engine

HYPER = ewc.Hyper(steps=12)
START = 100.0


@pytest.fixture(scope="module")
def engine(blobs):
    return Engine(ewc.build(blobs.problem, tiny(ewc)), blobs.problem)


@pytest.mark.parametrize(
    ("rates", "seed", "first", "strongest"),
    [
        ((1e-2, 3e-3), 4, 1e-2, START / 2**5),  # coefficients are halved
        ((30.0, 1e-2, 3e-3), 3, 1e-2, START),  # a rate is too much, and not tried again
    ],
)
def test_every_choice_is_the_one_that_the_rules_make(
    rates, seed, first, strongest, engine, blobs, monkeypatch
):
    monkeypatch.setattr(facil, "RATES", rates)
    walked = facil.walk(engine, blobs, HYPER, "ewc", START, seed)
    lane, attempts = engine.start(HYPER, seed), 0
    for t, task in enumerate(blobs.tasks):

        def reached(rate, strength, lane=lane, t=t, task=task):
            trial = lane._replace(hyper=HYPER._replace(lr=rate, ewc=strength))
            (learned,) = learn_task(engine, [trial], blobs.batch(t), t)
            found = engine.evaluate([learned.state], [task.validation], blobs.own())
            return learned, found[0, 0]

        allowed = [rate for rate in rates if t == 0 or rate <= walked.rates[0]]
        plain = [reached(rate, 0.0)[1] for rate in allowed]
        assert walked.rates[t] == allowed[int(np.argmax(plain))]
        attempts += len(allowed)
        strength = START if t else 0.0
        if t:
            for _ in range(7):
                attempts += 1
                if reached(walked.rates[t], strength)[1] >= 0.8 * max(plain):
                    break
                strength /= 2
            else:
                attempts += 1
        assert walked.coefficients[t] == strength
        learned, _ = reached(walked.rates[t], strength)
        lane = lane._replace(state=learned.state)
        splits = [one.validation for one in blobs.tasks[: t + 1]]
        row = engine.evaluate([lane.state], splits, blobs.rivals(t))[0]
        np.testing.assert_allclose(walked.accuracy[t, : t + 1], row)
    assert walked.attempts == attempts and walked.diverged is None
    assert (walked.rates[0], max(walked.coefficients)) == (first, strongest)


def test_where_none_suffices_the_eighth_is_taken(engine, blobs, monkeypatch):
    monkeypatch.setattr(facil, "DROP", -2.0)  # three times the accuracy of fine-tuning
    found = facil.walk(engine, blobs, HYPER, "ewc", START, seed=4)
    assert found.coefficients == [0.0, START / 128, START / 128]


def test_what_diverges_is_never_preferred(engine, blobs, monkeypatch):
    monkeypatch.setattr(facil, "RATES", (1e300, 1e-3))
    assert facil.walk(engine, blobs, HYPER, "ewc", START, seed=4).rates == [1e-3] * 3


def test_a_walk_ends_where_everything_diverges(engine, blobs, monkeypatch):
    monkeypatch.setattr(facil, "RATES", (1e300,))
    found = facil.walk(engine, blobs, HYPER, "ewc", START, seed=4)
    assert "became" in found.diverged or "not finite" in found.diverged
    assert np.isnan(found.accuracy).all() and len(found.rates) == 1
