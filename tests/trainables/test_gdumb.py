"""GDumb: what is in its memory, and that it is trained on that alone, from scratch."""

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import EXACTLY, F64, generator, tiny
from trainables import gdumb
from trainables.engine import classifier
from trainables.engine.checkpoint import size_in_bytes
from trainables.engine.learn import learn
from trainables.engine.packs import in_lane

SHAPE = tiny(gdumb)
HYPER = gdumb.Hyper(steps=20, lr=0.02, beta1=0.8)


def begun(stream, tasks, seed=0, shape=SHAPE):
    """The method, and its states at the start of each task, weights as at its end."""
    method, states = gdumb.build(stream.problem, shape), []
    state = method.init(generator(seed))
    for t in range(tasks):
        fresh = method.init(generator(1000 * seed + t + 1))
        state = method.begin_task(state, fresh, stream.batch(t), in_lane(HYPER, F64))
        states.append(state)
        state = state._replace(params={k: p + 1 for k, p in state.params.items()})
    return method, states


def test_a_task_begins_with_fresh_weights(blobs):
    method, states = begun(blobs, 3)
    for t, state in enumerate(states):
        fresh = method.init(generator(t + 1))
        torch.testing.assert_close(state.params, fresh.params, **EXACTLY)
        torch.testing.assert_close(state.moments, fresh.moments, **EXACTLY)


@pytest.mark.parametrize("places", [7, 20, 31])
def test_the_memory_is_balanced_over_all_seen_classes_the_new_ones_too(places, blobs):
    _, states = begun(blobs, 3, shape=SHAPE._replace(memory_size=places))
    for t, state in enumerate(states):
        counts = state.memory.y.bincount(minlength=6)
        seen = blobs.batch(t).seen
        assert counts[seen].max() - counts[seen].min() <= 1
        assert counts[seen].sum() == places == state.memory.taken
        for own in range(t + 1):
            task = blobs.batch(own)
            for c in task.current.nonzero()[:, 0]:
                stored = state.memory.x[state.memory.y == c]
                assert len(stored.unique(dim=0)) == len(stored)
                theirs = task.x[task.y == c]
                assert all((theirs == row).all(-1).any() for row in stored)


def test_what_is_stored_of_a_class_is_chosen_at_random(blobs):
    """40 examples a class; after two tasks 5 of each are left."""
    task, counts = blobs.batch(0), torch.zeros(80)
    for seed in range(400):
        x = begun(blobs, 2, seed)[1][-1].memory.x
        counts += (task.x[:, None] == x).all(-1).any(-1)
    assert counts.sum() == 400 * 10
    assert ((counts - 50).abs() < 5 * (400 / 8 * 7 / 8) ** 0.5).all()


@pytest.mark.parametrize("scenario", ["blobs", "blobs_by_task"])
def test_steps_are_those_of_plain_torch_on_the_memory(scenario, request):
    stream = request.getfixturevalue(scenario)
    method, states = begun(stream, 2)
    state, task, hyper = states[-1], stream.batch(1), in_lane(HYPER, F64)
    net = classifier.network(stream.problem, SHAPE)
    leaves = {k: p.clone().requires_grad_() for k, p in state.params.items()}
    adam = torch.optim.Adam(leaves.values(), lr=0.02, betas=(0.8, 0.999))
    nothing = task._replace(x=task.x[:8] * torch.nan, y=task.y[:8])
    for s in range(7):
        noise = {k: u[0] for k, u in method.draw(generator(s), "train", 1, task, HYPER).items()}
        rows = [int(20 * u) for u in noise["chance"]]
        assert len(rows) == SHAPE.batch_size
        x, y = state.memory.x[rows], state.memory.y[rows]
        loss = torch.stack(
            [
                F.cross_entropy(row[task.rivals[c]], task.rivals[c].cumsum(0)[c] - 1)
                for row, c in zip(net.apply(leaves, x), y, strict=True)
            ]
        ).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        state, terms = method.steps["train"](state, nothing, hyper, noise)
        torch.testing.assert_close(terms, {"cross_entropy": loss.detach()})
    found = {k: p.detach() for k, p in leaves.items()}
    torch.testing.assert_close(state.params, found, rtol=1e-9, atol=1e-9)


def test_a_task_with_more_examples_than_the_problem_says_is_refused(blobs):
    method = gdumb.build(blobs.problem._replace(examples=10), SHAPE)
    state = method.init(generator(0))
    with pytest.raises(ValueError, match="at most 10 examples a task, as the problem says, got 80"):
        method.begin_task(state, state, blobs.batch(0), in_lane(HYPER, F64))


def test_its_memory_counts(blobs):
    method = gdumb.build(blobs.problem, SHAPE)
    weights = 8 * ((8 + 1) * 8 + (8 + 1) * 6)
    found = size_in_bytes(method.carried(method.init(generator(0))))
    assert found == weights + 20 * 8 * (8 + 1 + 1) + 8


def test_it_knows_every_task_alike(blobs):
    shape = gdumb.Shape(hidden=32, batch_size=16, memory_size=30)
    hyper = gdumb.Hyper(steps=80, lr=1e-2)
    (walk,) = learn(gdumb.build(blobs.problem, shape), blobs, [(hyper, 0)])
    assert walk.accuracy[2].min() > 0.9
