"""ER: its loss one example at a time, and what it is for."""

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import EXACTLY, F64, first_tasks, generator, tiny
from trainables import er, sequential
from trainables.engine import classifier, memory
from trainables.engine.checkpoint import size_in_bytes
from trainables.engine.learn import learn
from trainables.engine.packs import in_lane

SHAPE = tiny(er)
HYPER = er.Hyper(steps=20, lr=0.02, beta1=0.8, rehearsal=0.6)


def drawn(method, phase, task, seed=4):
    noise = method.draw(generator(seed), phase, 1, task, HYPER)
    return {name: leaf[0] for name, leaf in noise.items()}


def minibatch(task, seed):
    rows = torch.randint(len(task.y), (SHAPE.batch_size,), generator=generator(seed))
    return task._replace(x=task.x[rows], y=task.y[rows])


def after(method, state, task, seed=4):
    return method.end_task(state, task, in_lane(HYPER, F64), drawn(method, "end_task", task, seed))


@pytest.mark.parametrize("scenario", ["blobs", "blobs_by_task"])
def test_steps_are_those_of_plain_torch(scenario, request):
    stream = request.getfixturevalue(scenario)
    method, hyper, task = er.build(stream.problem, SHAPE), in_lane(HYPER, F64), stream.batch(1)
    state = after(method, method.init(generator(0)), stream.batch(0))
    net = classifier.network(stream.problem, SHAPE)
    leaves = {k: p.clone().requires_grad_() for k, p in state.params.items()}
    adam = torch.optim.Adam(leaves.values(), lr=0.02, betas=(0.8, 0.999))

    def loss(x, y):
        kept = [
            F.cross_entropy(row[task.rivals[c]], task.rivals[c].cumsum(0)[c] - 1)
            for row, c in zip(net.apply(leaves, x), y, strict=True)
        ]
        return torch.stack(kept).mean()

    for s in range(7):
        batch, noise = minibatch(task, s), drawn(method, "train", task, 10 + s)
        rows = [int(20 * u) for u in noise["chance"]]
        old_x, old_y = state.memory.x[rows], state.memory.y[rows]
        assert task.learned[old_y].all()
        new, old = loss(batch.x, batch.y), loss(old_x, old_y)
        adam.zero_grad()
        (new + 0.6 * old).backward()
        adam.step()
        state, terms = method.steps["train"](state, batch, hyper, noise)
        expected = {"cross_entropy": new.detach(), "rehearsal": old.detach()}
        torch.testing.assert_close(terms, expected)
    found = {k: p.detach() for k, p in leaves.items()}
    torch.testing.assert_close(state.params, found, rtol=1e-9, atol=1e-9)


def test_nothing_is_rehearsed_in_the_first_task(blobs):
    trial = {"steps": 15, "lr": 0.02}
    one_task = first_tasks(blobs, 1)
    (walk,) = learn(er.build(blobs.problem, SHAPE), one_task, [(er.Hyper(**trial), 0)])
    plain = sequential.build(blobs.problem, tiny(sequential))
    (free,) = learn(plain, one_task, [(sequential.Hyper(**trial), 0)])
    torch.testing.assert_close(walk.state.params, free.state.params, **EXACTLY)
    assert walk.losses[0]["rehearsal"] == 0


def test_the_memory_holds_examples_of_tasks_that_have_ended(blobs):
    method = er.build(blobs.problem, SHAPE)
    state = method.init(generator(0))
    for t in range(3):
        task = blobs.batch(t)
        state = method.begin_task(state, method.init(generator(9)), task, in_lane(HYPER, F64))
        assert not task.current[state.memory.y[: int(state.memory.taken)]].any()
        state = after(method, state, task, t)
        counts = state.memory.y.bincount(minlength=6)[task.seen]
        assert counts.sum() == 20
        assert counts.max() - counts.min() <= 1


def test_an_unknown_policy_is_refused(blobs):
    with pytest.raises(ValueError, match="unknown memory_policy 'ring'"):
        er.build(blobs.problem, SHAPE._replace(memory_policy="ring"))


def test_its_memory_counts(blobs):
    method = er.build(blobs.problem, SHAPE)
    state = method.init(generator(0))
    weights = 8 * ((8 + 1) * 8 + (8 + 1) * 6)
    # Each place has eight inputs, a label and a key; how many are taken is a number more.
    assert size_in_bytes(method.carried(state)) == weights + 20 * 8 * (8 + 1 + 1) + 8
    assert er.Shape().memory_size == memory.PLACES


@pytest.mark.parametrize("policy", memory.POLICIES)
def test_rehearsal_keeps_what_fine_tuning_forgets(policy, blobs):
    shape = er.Shape(hidden=32, batch_size=16, replay_batch_size=16, memory_policy=policy)
    method = er.build(blobs.problem, shape._replace(memory_size=30))
    hyper = er.Hyper(steps=80, lr=1e-2)
    kept, forgot = learn(method, blobs, [(hyper, 0), (hyper._replace(rehearsal=0.0), 0)])
    assert kept.accuracy[2].min() > 0.85
    assert forgot.accuracy[2, :2].max() < 0.3
