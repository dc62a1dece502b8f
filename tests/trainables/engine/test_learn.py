"""The walk through a stream, with a method whose numbers can be worked out by hand."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import EXACTLY, F64, first_tasks, generator
from trainables import sequential
from trainables.engine import learn as learning
from trainables.engine import noise
from trainables.engine.learn import Engine, Lane, in_blocks, in_lane, learn
from trainables.engine.method import Method, Problem

BATCH = 4


class Hyper(NamedTuple):
    a: float = 0  # steps of phase "a"
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


def walk(stream, trials, tasks=1):
    return learn(toy(stream.problem), first_tasks(stream, tasks), trials)


# ---- programs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("a", [0, 1, 31, 32, 33, 100])
@pytest.mark.parametrize("order", ["ab", "ba", "aba"])
def test_blocks_add_up_to_the_program(a, order, blobs):
    pieces = in_blocks(toy(blobs.problem), Hyper(a=a, b=40, order=order), 0)[::-1]
    assert all(0 < steps <= noise.BLOCK for _, steps in pieces)
    steps = "".join(phase * count for phase, count in pieces)
    assert steps == "".join({"a": "a" * a, "b": "b" * 40}[p] for p in order)


@pytest.mark.parametrize("program", [[("c", 5)], [("a", 3), ("b", -1)]])
def test_programs_that_cannot_run_raise(program, blobs):
    method = toy(blobs.problem)._replace(schedule=lambda hyper, t: program)
    with pytest.raises(ValueError, match=r"expected phases of .'a', 'b'. with steps >= 0"):
        in_blocks(method, Hyper(), 0)


# ---- what reaches a lane -------------------------------------------------------------------------


def by_hand(hyper, seed, stream, tasks):
    """The toy's state, one trial and one step at a time."""
    a = seen = b = ended = 0.0
    fresh = None
    for t in range(tasks):
        task = stream.batch(t)
        draws = {p: noise.generator(seed, p, t) for p in ("a", "b", "batch:a", "end_task")}
        steps = int(hyper.a)
        for start in range(0, steps, noise.BLOCK):
            values = torch.randn(noise.BLOCK, generator=draws["a"], dtype=F64)
            rows = torch.randint(len(task.y), (noise.BLOCK, BATCH), generator=draws["batch:a"])
            for s in range(min(noise.BLOCK, steps - start)):
                a = hyper.keep * a + values[s]
                met = (task.x[rows[s]].sum(-1) * task.y[rows[s]]).sum() + 2 * t
                seen = hyper.keep * seen + met
        b += hyper.b
        fresh = torch.randn((), generator=noise.generator(seed, "reset", t), dtype=F64)
        ended += torch.randn(1, generator=draws["end_task"], dtype=F64)[0] + len(task.y)
    return [a, seen, b, fresh, ended]


TRIALS = [
    (Hyper(a=40, b=70), 0),
    (Hyper(a=40, b=70, keep=0.9), 1),
    (Hyper(a=33, b=3, keep=0.1, order="ba"), 2),
    (Hyper(a=100, b=0, keep=0.7), 3),
    (Hyper(a=64, b=32, order="ba"), 4),
]


def test_every_lane_gets_its_own_noise_batches_and_hyperparameters(blobs, monkeypatch):
    monkeypatch.setattr(learning, "UNROLL_AFTER", noise.BLOCK)  # so that traced steps run too
    for (hyper, seed), walked in zip(TRIALS, walk(blobs, TRIALS, tasks=2), strict=True):
        expected = torch.stack([torch.as_tensor(v) for v in by_hand(hyper, seed, blobs, 2)])
        torch.testing.assert_close(torch.stack(list(walked.state)), expected)


def test_losses_are_means_over_the_steps_that_computed_them(blobs):
    (walked,) = walk(blobs, [(Hyper(a=40, b=70), 0)], tasks=2)
    first, second = walked.losses
    assert first["b"] == pytest.approx(np.arange(70).mean())
    assert second["b"] == pytest.approx(np.arange(70, 140).mean())
    assert first["both"] == pytest.approx((40 * 1 + 70 * 3) / 110)


def test_a_phase_without_steps_leaves_no_losses(blobs):
    (walked,) = walk(blobs, [(Hyper(a=5), 0)])
    assert set(walked.losses[0]) == {"a", "both"}


def test_hyperparameters_in_a_lane():
    class Mixed(NamedTuple):
        number: float = 0.25
        flag: bool = True
        text: str = "ab"

    inside = in_lane(Mixed(), F64)
    assert all(leaf.shape == () and leaf.dtype == F64 for leaf in inside)
    assert (inside.number, inside.flag) == (0.25, 1.0)
    assert inside.text.isnan()


# ---- evaluation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["blobs", "blobs_by_task"])
def test_accuracy_is_the_share_of_right_answers_among_rivals(scenario, request, monkeypatch):
    monkeypatch.setattr(learning, "EVALUATED_AT_ONCE", 7)  # splits that do not divide evenly
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


def test_learn_fills_the_lower_triangle_with_validation_accuracy(blobs):
    method = sequential.build(blobs.problem, sequential.Shape(hidden=8))
    (walked,) = learn(method, blobs, [(sequential.Hyper(steps=10), 0)])
    assert np.array_equal(np.isfinite(walked.accuracy), np.tri(3, dtype=bool))
    splits = [task.validation for task in blobs.tasks]
    rows = Engine(method, blobs.problem).evaluate([walked.state], splits, blobs.rivals(2))
    assert walked.accuracy[2].tolist() == rows[0].tolist()
    assert len(walked.losses) == 3


# ---- leaving and coming back ---------------------------------------------------------------------


def test_a_walk_continued_from_its_states_is_the_same_walk(blobs):
    method = toy(blobs.problem)
    walks = walk(blobs, TRIALS, tasks=3)
    for (hyper, seed), walked in zip(TRIALS, walks, strict=True):
        one = Engine(method, blobs.problem).start(hyper, seed)
        for t in range(3):
            engine = Engine(method, blobs.problem)
            (done,) = engine.learn_task([Lane(hyper, seed, one.state)], blobs.batch(t), t)
            one = one._replace(state=done.state)
            rows = engine.evaluate(
                [one.state], [task.validation for task in blobs.tasks[: t + 1]], blobs.rivals(t)
            )
            assert walked.accuracy[t, : t + 1].tolist() == rows[0].tolist()
        torch.testing.assert_close(one.state, walked.state, **EXACTLY)


def test_a_diverged_loss_ends_its_lane_only(blobs):
    trials = [TRIALS[0], (Hyper(a=40, b=70, keep=1e300), 1), TRIALS[1]]
    good, bad, other = walk(blobs, trials, tasks=2)
    assert bad.diverged is not None
    assert bad.diverged.startswith("a became ")
    assert "task 0, phase a" in bad.diverged
    assert np.isnan(bad.accuracy).all()
    assert len(bad.losses) == 1
    for walked, trial in ((good, TRIALS[0]), (other, TRIALS[1])):
        (alone,) = walk(blobs, [trial], tasks=2)
        assert walked.diverged is None
        torch.testing.assert_close(walked.state, alone.state)
        assert np.array_equal(walked.accuracy, alone.accuracy, equal_nan=True)


def test_weights_that_are_not_finite_end_a_lane(blobs):
    trials = [(Hyper(a=3, poison=np.inf), 0), TRIALS[0]]
    bad, good = walk(blobs, trials, tasks=2)
    assert bad.diverged == "weights are not finite after task 0"
    assert good.diverged is None
    assert np.isfinite(good.accuracy[1, :2]).all()


def test_learn_stops_when_no_lane_is_left(blobs):
    (bad,) = walk(blobs, [(Hyper(a=3, poison=np.nan), 0)], tasks=3)
    assert len(bad.losses) == 1
    assert np.isnan(bad.accuracy).all()
