"""Packs of lanes, with a method whose numbers can be worked out by hand."""

import itertools
import math
import random
import time
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import F64, generator
from trainables import sequential
from trainables.engine import noise, packs
from trainables.engine.fuse import unroll
from trainables.engine.learn import learn_task
from trainables.engine.method import Method, Problem
from trainables.engine.packs import Engine, Learned, in_lane, out_of_memory, program_of

BATCH = 4


class Hyper(NamedTuple):
    a: float = 0  # steps of phase "a", each time that it comes
    b: float = 0
    keep: float = 0.5
    order: str = "ab"
    poison: float = 0  # added to the state at the end of a task


class State(NamedTuple):
    a: Tensor  # x ← keep x + noise, over the steps of phase "a"
    seen: Tensor  # the same of what the batches hold
    b: Tensor  # steps of phase "b" so far
    fresh: Tensor  # what the last reset offered
    ended: Tensor  # Σ over tasks of (noise of the end + number of examples)


def toy(problem: Problem) -> Method:
    """A method that writes down what reaches it. Its losses are its own counters."""

    def init(g):
        zero = torch.zeros((), dtype=F64)
        return State(zero, zero, zero, torch.randn((), generator=g, dtype=F64), zero)

    def step_a(state, batch, hyper, noise):
        a = hyper.keep * state.a + noise["n"]
        met = (batch.x.sum(-1) * batch.y).sum() + batch.learned.sum()
        seen = hyper.keep * state.seen + met
        return state._replace(a=a, seen=seen), {"a": a, "both": torch.ones_like(a)}

    def step_b(state, batch, hyper, noise):
        return state._replace(b=state.b + 1), {"b": state.b, "both": 3 * torch.ones_like(state.b)}

    def end_task(state, task, hyper, noise):
        return state._replace(ended=state.ended + noise["n"] + len(task.y) + hyper.poison)

    def draw(g, phase, steps, task, hyper):
        return {"n": torch.randn(steps, generator=g, dtype=F64)}

    return Method(
        init=init,
        schedule=lambda h, t: [{"a": ("a", int(h.a)), "b": ("b", int(h.b))}[p] for p in h.order],
        steps={"a": step_a, "b": step_b},
        predict=lambda state, x: x[:, : problem.classes] + state.a,
        begin_task=lambda state, fresh, task, hyper: state._replace(fresh=fresh.fresh),
        end_task=end_task,
        draw=draw,
        batch_size=BATCH,
    )


def by_hand(hyper, seed, stream, tasks=1) -> State:
    """The toy's state, one trial and one step at a time."""
    a = seen = b = ended = 0.0
    fresh = None
    for t in range(tasks):
        task = stream.batch(t)
        draws = {p: noise.generator(seed, p, t) for p in ("a", "batch:a", "end_task")}
        steps = int(hyper.a) * hyper.order.count("a")
        for start in range(0, steps, noise.BLOCK):
            values = torch.randn(noise.BLOCK, generator=draws["a"], dtype=F64)
            rows = torch.randint(len(task.y), (noise.BLOCK, BATCH), generator=draws["batch:a"])
            for s in range(min(noise.BLOCK, steps - start)):
                a = hyper.keep * a + values[s]
                met = (task.x[rows[s]].sum(-1) * task.y[rows[s]]).sum() + 2 * t
                seen = hyper.keep * seen + met
        b += int(hyper.b) * hyper.order.count("b")
        fresh = torch.randn((), generator=noise.generator(seed, "reset", t), dtype=F64)
        ended += torch.randn(1, generator=draws["end_task"], dtype=F64)[0] + len(task.y)
    return State(*(torch.as_tensor(v, dtype=F64) for v in (a, seen, b, fresh, ended)))


TRIALS = [
    (Hyper(a=40, b=70), 0),
    (Hyper(a=40, b=70, keep=0.9), 1),
    (Hyper(a=33, b=3, keep=0.1, order="ba"), 2),
    (Hyper(a=100, b=0, keep=0.7), 3),
    (Hyper(a=64, b=32, order="ba"), 4),
    (Hyper(a=21, b=2, order="abaab"), 5),
]


@pytest.fixture
def engine(blobs):
    return Engine(toy(blobs.problem), blobs.problem)


def until_all_end(engine: Engine) -> dict[int, Learned]:
    """What became of the lanes inside, by seed, in the order in which they end."""
    ended = {}
    while engine.seats:
        ended |= {seat.lane.seed: learned for seat, learned in engine.advance()}
    return ended


# ---- programs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("a", [0, 1, 31, 32, 33, 100])
@pytest.mark.parametrize("order", ["ab", "ba", "aba"])
def test_a_program_is_the_schedule_without_empty_phases_and_last_first(a, order, blobs):
    program = program_of(toy(blobs.problem), Hyper(a=a, b=40, order=order), 0)[::-1]
    assert all(steps > 0 for _, steps in program)
    steps = "".join(phase * count for phase, count in program)
    assert steps == "".join({"a": "a" * a, "b": "b" * 40}[p] for p in order)


@pytest.mark.parametrize("program", [[("c", 5)], [("a", 3), ("b", -1)]])
def test_programs_that_cannot_run_raise(program, blobs):
    method = toy(blobs.problem)._replace(schedule=lambda hyper, t: program)
    with pytest.raises(ValueError, match=r"expected phases of .'a', 'b'. with steps >= 0"):
        program_of(method, Hyper(), 0)
    engine = Engine(method, blobs.problem)
    with pytest.raises(ValueError, match="expected phases"):
        engine.join(engine.start(Hyper(), 0), blobs.batch(0), 0)
    assert engine.seats == []


# ---- what reaches a lane -------------------------------------------------------------------------


def test_every_lane_gets_its_own_noise_batches_and_hyperparameters(engine, blobs):
    lanes = [engine.start(*trial) for trial in TRIALS]
    for t in range(2):
        learned = learn_task(engine, lanes, blobs.batch(t), t)
        lanes = [a._replace(state=b.state) for a, b in zip(lanes, learned, strict=True)]
    for lane, trial in zip(lanes, TRIALS, strict=True):
        torch.testing.assert_close(lane.state, by_hand(*trial, blobs, 2))


@pytest.mark.parametrize("widest", [2, 3, 8])
def test_where_the_blocks_of_neighbours_end_and_which_tasks_they_learn_is_no_matter(
    widest, blobs, monkeypatch
):
    """Lanes join at any moment, so that few are at the same step of a block, or in one task."""
    mixed, run = set(), Engine._run

    def _run(self, phase, steps, seats):
        offsets, tasks = {seat.blocks[phase].used for seat in seats}, {seat.t for seat in seats}
        mixed.add((len(offsets) > 1, len(tasks) > 1))
        run(self, phase, steps, seats)

    monkeypatch.setattr(Engine, "_run", _run)
    engine, rng = Engine(toy(blobs.problem), blobs.problem, widest=widest), random.Random(widest)
    batches, coming, ended = [blobs.batch(t) for t in range(3)], TRIALS[::-1], {}
    while coming or engine.seats:
        if coming and rng.random() < 0.5:
            engine.join(engine.start(*coming.pop()), batches[0], 0)
        for seat, learned in engine.advance():
            lane, t = seat.lane._replace(state=learned.state), seat.t + 1
            if t < len(batches):
                engine.join(lane, batches[t], t)
            else:
                ended[lane.seed] = lane.state
    assert (True, True) in mixed
    for hyper, seed in TRIALS:
        torch.testing.assert_close(ended[seed], by_hand(hyper, seed, blobs, 3))


def test_lanes_of_two_streams_keep_to_their_own(engine, blobs):
    other = replace(blobs, tasks=blobs.tasks[::-1])
    streams, lane = [blobs, other, blobs], engine.start(*TRIALS[0])
    for stream in streams:
        engine.join(lane._replace(seed=len(engine.seats)), stream.batch(0), 0)
    for seed, learned in until_all_end(engine).items():
        expected = by_hand(TRIALS[0][0], seed, streams[seed])
        torch.testing.assert_close(learned.state, expected)


def test_losses_are_means_over_the_steps_that_computed_them(engine, blobs):
    lane = engine.start(Hyper(a=40, b=70), 0)
    (first,) = learn_task(engine, [lane], blobs.batch(0), 0)
    (second,) = learn_task(engine, [lane._replace(state=first.state)], blobs.batch(1), 1)
    assert first.losses["b"] == pytest.approx(np.arange(70).mean())
    assert second.losses["b"] == pytest.approx(np.arange(70, 140).mean())
    assert first.losses["both"] == pytest.approx((40 * 1 + 70 * 3) / 110)


def test_a_phase_without_steps_leaves_no_losses(engine, blobs):
    (learned,) = learn_task(engine, [engine.start(Hyper(a=5), 0)], blobs.batch(0), 0)
    assert set(learned.losses) == {"a", "both"}


def test_a_lane_without_steps_ends_at_once(engine, blobs, ran):
    for trial in [(Hyper(a=5), 0), (Hyper(), 1)]:
        engine.join(engine.start(*trial), blobs.batch(0), 0)
    ((seat, learned),) = engine.advance()
    assert ran == []
    assert seat.lane.seed == 1
    assert (learned.losses, learned.diverged) == ({}, None)
    torch.testing.assert_close(learned.state, by_hand(Hyper(), 1, blobs))
    assert len(engine.seats) == 1


def test_an_engine_without_lanes_has_nothing_to_do(engine):
    assert engine.advance() == []


def test_a_lane_that_leaves_is_forgotten_wherever_it_stands(engine, blobs):
    seats = [engine.join(engine.start(*trial), blobs.batch(0), 0) for trial in TRIALS]
    engine.leave(seats[0])
    engine.advance()
    moved = [seat for seat in seats if seat.steps.total()]
    assert engine.stepping == moved
    assert 1 < len(moved) < 5
    engine.leave(moved[0])
    engine.leave(moved[0])  # again: no matter
    left = until_all_end(engine)
    assert left.keys() == {1, 2, 3, 4, 5} - {moved[0].lane.seed}
    for seed, learned in left.items():
        torch.testing.assert_close(learned.state, by_hand(*TRIALS[seed], blobs))


def test_hyperparameters_in_a_lane():
    class Mixed(NamedTuple):
        number: float = 0.25
        flag: bool = True
        text: str = "ab"

    inside = in_lane(Mixed(), F64)
    assert all(leaf.shape == () and leaf.dtype == F64 for leaf in inside)
    assert (inside.number, inside.flag) == (0.25, 1.0)
    assert inside.text.isnan()


# ---- who steps together --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lanes", "widest", "widths"),
    [
        (1, 8, [1]),
        (2, 8, [2]),
        (3, 8, [3]),
        (4, 8, [4]),
        (5, 8, [4, 1]),
        (7, 8, [6, 1]),
        (8, 8, [8]),
        (9, 8, [8, 1]),
        (11, 16, [8, 3]),
        (23, 64, [16, 6, 1]),
        (7, 5, [5, 2]),
        (9, 7, [7, 2]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_packs_have_one_of_few_widths_or_the_widest(lanes, widest, widths, blobs, ran):
    engine = Engine(toy(blobs.problem), blobs.problem, widest=widest)
    learn_task(engine, [engine.start(Hyper(a=5), k) for k in range(lanes)], blobs.batch(0), 0)
    assert ran == [("a", 5, width) for width in widths]


def test_those_that_came_first_go_first(engine, blobs):
    for k in (3, 1, 2):
        engine.join(engine.start(Hyper(a=5), k), blobs.batch(0), 0)
    assert list(until_all_end(engine)) == [3, 1, 2]


def test_the_phase_that_most_lanes_wait_for_goes_first(engine, blobs, ran):
    trials = [(Hyper(a=5, b=3, order=order), k) for k, order in enumerate(["ab", "ba", "ba"])]
    learn_task(engine, [engine.start(*trial) for trial in trials], blobs.batch(0), 0)
    # Lanes 1 and 2; then all three wait for "a"; then one is left.
    assert ran == [("b", 3, 2), ("a", 5, 3), ("b", 3, 1)]


def test_a_pack_steps_until_its_first_lane_changes_phase_or_needs_a_block(engine, blobs, ran):
    trials = [(Hyper(a=40, b=1), 0), (Hyper(a=70), 1)]
    learn_task(engine, [engine.start(*trial) for trial in trials], blobs.batch(0), 0)
    assert ran == [("a", 32, 2), ("a", 8, 2), ("b", 1, 1), ("a", 24, 1), ("a", 6, 1)]


def test_lanes_of_different_tasks_step_together(engine, blobs, ran):
    for t in range(3):
        engine.join(engine.start(Hyper(a=5), t), blobs.batch(t), t)
    engine.join(engine.start(Hyper(a=5), 3), blobs.batch(1), 1)
    assert until_all_end(engine).keys() == {0, 1, 2, 3}
    assert ran == [("a", 5, 4)]


def test_the_width_of_a_lane_is_the_mean_over_its_steps(engine, blobs):
    trials = [(Hyper(a=10), 0), (Hyper(a=20, b=10), 1)]
    lanes = [engine.start(*trial) for trial in trials]
    learned = learn_task(engine, lanes, blobs.batch(0), 0)
    assert [one.width for one in learned] == [2.0, (10 * 2 + 10 + 10) / 30]


def test_the_time_of_a_pack_is_shared_by_its_lanes(engine, blobs):
    lanes, started = [engine.start(Hyper(a=10), k) for k in range(4)], time.perf_counter()
    seconds = [one.seconds for one in learn_task(engine, lanes, blobs.batch(0), 0)]
    assert 0 < sum(seconds) <= time.perf_counter() - started


# ---- memory --------------------------------------------------------------------------------------


def scarce(monkeypatch, fits: int, error: Exception) -> None:
    """Let packs wider than ``fits`` fail at their third step."""

    def failing(step, example):
        program, steps = unroll(step, example), itertools.count()

        def run(*leaves):
            if len(example[0]) > fits and next(steps) >= 2:
                raise error
            return program.run(*leaves)

        return program._replace(run=run)

    monkeypatch.setattr(packs, "unroll", failing)


FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate"),
]


@pytest.mark.parametrize("error", FULL)
def test_packs_narrow_until_memory_suffices(error, engine, blobs, monkeypatch, ran):
    scarce(monkeypatch, 2, error)
    trials = [(Hyper(a=40, b=7, keep=0.1 * k), k) for k in range(11)]
    learned = learn_task(engine, [engine.start(*trial) for trial in trials], blobs.batch(0), 0)
    assert (engine.widest, engine.narrowed) == (2, 2)  # 8 -> 4 -> 2
    assert {width for *_, width in ran} == {1, 2}
    elsewhere = Engine(toy(blobs.problem), blobs.problem, widest=2)
    for one, trial in zip(learned, trials, strict=True):
        torch.testing.assert_close(one.state, by_hand(*trial, blobs))
        (other,) = learn_task(elsewhere, [elsewhere.start(*trial)], blobs.batch(0), 0)
        torch.testing.assert_close(one.losses, other.losses)


@pytest.mark.parametrize("error", FULL)
def test_one_lane_for_which_memory_does_not_suffice_raises(error, engine, blobs, monkeypatch, ran):
    scarce(monkeypatch, 0, error)
    lanes = [engine.start(Hyper(a=40), k) for k in range(4)]
    with pytest.raises(type(error), match=r"CUDA out of memory|DefaultCPUAllocator"):
        learn_task(engine, lanes, blobs.batch(0), 0)
    assert (engine.widest, engine.narrowed) == (1, 2)
    assert engine.stepping == engine.seats[:1]
    assert ran == []


def test_other_errors_are_no_lack_of_memory(engine, blobs, monkeypatch):
    scarce(monkeypatch, 1, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        learn_task(engine, [engine.start(*trial) for trial in TRIALS], blobs.batch(0), 0)
    assert (engine.widest, engine.narrowed) == (1024, 0)
    assert [out_of_memory(error) for error in FULL] == [True, True]


# ---- divergence ----------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_ends_its_lane_only(engine, blobs):
    trials = [TRIALS[0], (Hyper(a=40, b=70, keep=1e300), 1), TRIALS[1]]
    lanes = [engine.start(*trial) for trial in trials]
    good, bad, other = learn_task(engine, lanes, blobs.batch(0), 0)
    assert bad.diverged is not None
    assert bad.diverged.startswith("a became ")
    assert bad.diverged.endswith("in task 0, phase a")
    assert "b" not in bad.losses  # it ends at the end of a block
    for learned, trial in ((good, TRIALS[0]), (other, TRIALS[1])):
        assert learned.diverged is None
        torch.testing.assert_close(learned.state, by_hand(*trial, blobs))


@pytest.mark.parametrize("neighbours", [[], [(Hyper(a=7), 7)], TRIALS])
def test_a_lane_diverges_at_the_same_step_in_all_company(neighbours, engine, blobs):
    bad = Hyper(a=45, b=70, keep=1e300), 9
    seat = engine.join(engine.start(*bad), blobs.batch(0), 0)
    for trial in neighbours:
        engine.join(engine.start(*trial), blobs.batch(0), 0)
    assert until_all_end(engine)[9].diverged is not None
    assert seat.steps == {"a": 32}


def test_weights_that_are_not_finite_end_a_lane(engine, blobs):
    trials = [(Hyper(a=3, poison=math.inf), 0), TRIALS[0]]
    bad, good = learn_task(engine, [engine.start(*trial) for trial in trials], blobs.batch(0), 0)
    assert bad.diverged == "weights are not finite after task 0"
    assert good.diverged is None


# ---- evaluation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["blobs", "blobs_by_task"])
def test_accuracy_is_the_share_of_right_answers_among_rivals(scenario, request, monkeypatch):
    monkeypatch.setattr(packs, "EVALUATED_AT_ONCE", 7)  # splits that do not divide evenly
    stream = request.getfixturevalue(scenario)
    method = sequential.build(stream.problem, sequential.Shape(hidden=8))
    states = [method.init(generator(k)) for k in range(4)]
    splits = [task.validation for task in stream.tasks[:2]]
    rows = Engine(method, stream.problem).evaluate(states, splits, stream.rivals(1))

    first, second = stream.tasks[0].classes, stream.tasks[1].classes
    for k, state in enumerate(states):
        for j, split in enumerate(splits):
            own = (first, second)[j]
            allowed = sorted(first + second if scenario == "blobs" else own)
            logits = method.predict(state, split.x)[:, allowed]
            right = [allowed[i] == y for i, y in zip(logits.argmax(-1), split.y, strict=True)]
            assert rows[k, j] == pytest.approx(np.mean(right))
    assert 0 < rows.mean() < 1
