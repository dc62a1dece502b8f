"""SI: steps against plain torch, and the path integral against the loss that it accounts for."""

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import F64, first_tasks, generator, tiny
from trainables import sequential, si
from trainables.engine import classifier
from trainables.engine.learn import learn
from trainables.engine.optim import flatten, unflatten
from trainables.engine.packs import in_lane

SHAPE = tiny(si)
HYPER = si.Hyper(steps=20, lr=0.02, beta1=0.8, si=3.0, damping=0.05)


def minibatch(task, s):
    rows = torch.randint(len(task.y), (8,), generator=generator(s))
    return task._replace(x=task.x[rows], y=task.y[rows])


def in_plain_torch(stream, net, params, tasks, steps):
    """Weights, Ω̂ and the last Ω after some tasks, by autograd and ``torch.optim``."""
    params = {name: leaf.clone().requires_grad_() for name, leaf in params.items()}
    leaves = list(params.values())
    flat = lambda tensors: torch.cat([t.detach().reshape(-1) for t in tensors])  # noqa: E731
    anchor, kept = flat(leaves), torch.zeros_like(flat(leaves))
    for t in range(tasks):
        task, path, start = stream.batch(t), torch.zeros_like(kept), flat(leaves)
        optimizer = torch.optim.Adam(leaves, lr=0.02, betas=(0.8, 0.999))
        for s in range(steps):
            batch = minibatch(task, 100 * t + s)
            columns = batch.seen.nonzero()[:, 0]
            target = torch.searchsorted(columns, batch.y)
            new = F.cross_entropy(net.apply(params, batch.x)[:, columns], target)
            slope = flat(torch.autograd.grad(new, leaves, retain_graph=True))
            moved = torch.cat([leaf.reshape(-1) for leaf in leaves]) - anchor
            optimizer.zero_grad()
            (new + 3.0 * (kept * moved.square()).sum()).backward()
            before = flat(leaves)
            optimizer.step()
            path -= slope * (flat(leaves) - before)
        own = path.clamp_min(0) / ((flat(leaves) - start).square() + 0.05)
        kept, anchor = kept + own / own.mean(), flat(leaves)
    return anchor, kept, own.mean()


def test_steps_and_importances_are_those_of_plain_torch(blobs):
    method, hyper = si.build(blobs.problem, SHAPE), in_lane(HYPER, F64)
    net, state = classifier.network(blobs.problem, SHAPE), method.init(generator(0))
    expected = in_plain_torch(blobs, net, state.params, tasks=3, steps=7)
    for t in range(3):
        task = blobs.batch(t)
        state = method.begin_task(state, method.init(generator(9)), task, hyper)
        for s in range(7):
            state, terms = method.steps["train"](state, minibatch(task, 100 * t + s), hyper, {})
            if t == 0:
                assert terms["si"] == terms["raw_coefficient"] == 0
        state = method.end_task(state, task, hyper, {})
        assert not state.path.any()
    found = flatten(state.params), state.importance, state.unit
    torch.testing.assert_close(found, expected)
    _, terms = method.steps["train"](state, minibatch(task, 0), hyper, {})
    torch.testing.assert_close(terms["raw_coefficient"], 3.0 / expected[2])


def test_the_path_integral_accounts_for_the_loss(blobs):
    """With small steps on one batch the sum of ω is what the loss fell by (Zenke et al., eq. 3)."""
    method, task = si.build(blobs.problem, SHAPE), blobs.batch(0)
    hyper = in_lane(HYPER._replace(lr=1e-4), F64)
    net, state = classifier.network(blobs.problem, SHAPE), method.init(generator(0))
    before = si.new_loss(state.params, task, hyper, net)
    for _ in range(200):
        state, _ = method.steps["train"](state, task, hyper, {})
    fell = before - si.new_loss(state.params, task, hyper, net)
    assert fell > 0.01
    assert float(state.path.sum()) == pytest.approx(float(fell), rel=0.02)


def test_what_raised_the_loss_counts_for_nothing():
    path = torch.tensor([-1.0, 0.0, 2.0], dtype=F64)
    found = si.contribution(path, torch.tensor([1.0, 1.0, 3.0], dtype=F64), 1.0)
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, 0.2], dtype=F64))


def test_without_a_penalty_it_is_sequential_and_with_a_large_one_it_stays(blobs_by_task):
    stream, own = first_tasks(blobs_by_task, 2), {"steps": 60, "lr": 0.01}
    method = si.build(stream.problem, SHAPE)
    walks = learn(method, stream, [(si.Hyper(si=c, **own), 0) for c in (0.0, 0.1, 1e3)])
    plain = sequential.build(stream.problem, tiny(sequential))
    (free,) = learn(plain, stream, [(sequential.Hyper(**own), 0)])
    torch.testing.assert_close(walks[0].state.params, free.state.params)
    (first,) = learn(method, first_tasks(stream, 1), [(si.Hyper(si=0.0, **own), 0)])
    kept, start = first.state.importance, first.state.anchor
    away = [float((kept * (flatten(w.state.params) - start).square()).sum()) for w in walks]
    assert away[0] > 3 * away[1] > 9 * away[2] > 0


def test_flat_vectors_follow_the_parameters(blobs):
    """ω, Ω and θ* are in the order of ``flatten``."""
    state = si.build(blobs.problem, SHAPE).init(generator(0))
    again = unflatten(state.anchor, state.params)
    torch.testing.assert_close(again, state.params)
