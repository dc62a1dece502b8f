"""How wide packs should be: a measurement, and what is made of it."""

from types import SimpleNamespace

import pytest
import torch

from tests.trainables.engine.test_packs import Hyper, toy
from trainables import sequential
from trainables.engine import noise, widths
from trainables.engine.learn import learn_task
from trainables.engine.packs import Engine
from trainables.engine.widths import Cost, best_width, measure

SMALL = sequential.Shape(hidden=8)


@pytest.mark.parametrize("width", [1, 4])
def test_a_measurement_is_positive_and_leaves_no_seats_behind(width, blobs, ran):
    engine = Engine(sequential.build(blobs.problem, SMALL), blobs.problem)
    cost = measure(engine, sequential.Hyper(steps=300), blobs.batch(1), 1, width)
    assert cost.width == width
    assert 0 < cost.seconds < 60
    assert 0 <= cost.bytes < 2**30 < cost.free * 1024
    assert engine.seats == []
    assert ran == [("train", noise.BLOCK, width)] * 3  # the first one traces


def test_a_measurement_does_not_change_what_a_lane_learns(blobs):
    engine = Engine(sequential.build(blobs.problem, SMALL), blobs.problem)
    learned = []
    for width in (None, 2):
        if width:
            measure(engine, sequential.Hyper(steps=300), blobs.batch(0), 0, width)
        lane = engine.start(sequential.Hyper(steps=7), 0)
        learned.append(learn_task(engine, [lane], blobs.batch(0), 0)[0].losses)
    assert learned[0] == learned[1]


@pytest.fixture
def clock(monkeypatch, ran):
    """What measures time: a step of a pack takes a second, however wide it is."""

    def perf_counter():
        return float(sum(steps for _, steps, _ in ran))

    monkeypatch.setattr(widths, "time", SimpleNamespace(perf_counter=perf_counter))


@pytest.mark.parametrize("width", [1, 2, 8])
def test_phases_count_by_the_steps_of_their_program(width, blobs, clock):
    engine = Engine(toy(blobs.problem), blobs.problem)
    cost = measure(engine, Hyper(a=40, b=7, order="aba"), blobs.batch(1), 1, width)
    assert cost.seconds == pytest.approx((2 * 40 + 7) / width)


@pytest.fixture
def scarce(monkeypatch, ran):
    """Memory for two lanes; a step takes a second for each lane, so that width gains nothing."""
    run = Engine._run

    def _run(self, phase, steps, seats):
        if len(seats) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        run(self, phase, steps, seats)

    def perf_counter():
        return float(sum(steps * width for _, steps, width in ran))

    monkeypatch.setattr(Engine, "_run", _run)
    monkeypatch.setattr(widths, "time", SimpleNamespace(perf_counter=perf_counter))


def test_lanes_that_memory_does_not_hold_leave_no_seats_behind(blobs, scarce):
    engine = Engine(toy(blobs.problem), blobs.problem)
    measure(engine, Hyper(a=40, b=7), blobs.batch(1), 1, 4)
    assert engine.seats == [] and engine.widest == 2


def test_a_width_that_memory_does_not_hold_is_not_the_best(blobs, scarce):
    engine = Engine(toy(blobs.problem), blobs.problem)
    costs = [measure(engine, Hyper(a=40), blobs.batch(1), 1, width) for width in (2, 4)]
    assert best_width(costs) == 2


# ---- what is made of it --------------------------------------------------------------------------


def costs_of(*seconds: float) -> list[Cost]:
    """Of widths 1, 2, 4, ..."""
    return [Cost(2**i, value, 1, 1) for i, value in enumerate(seconds)]


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ([8.0], 1),
        ([8.0, 4.0], 2),
        ([8.0, 7.3], 1),
        ([8.0, 4.0, 2.0, 1.0], 8),
        ([8.0, 4.0, 3.5, 3.4], 4),
        ([8.0, 4.0, 3.7], 2),
        ([8.0, 9.0, 4.0], 4),  # a width that gains nothing does not hide the next one
        ([8.0, 4.0, 9.0], 2),
    ],
)
def test_the_best_width_is_the_narrowest_that_costs_hardly_more(seconds, best):
    assert best_width(costs_of(*seconds)) == best
