"""RWalk: steps and importances against plain torch, and its score against numbers by hand."""

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import EXACTLY, F64, first_tasks, generator, tiny
from trainables import rwalk, sequential
from trainables.engine import classifier
from trainables.engine.learn import learn
from trainables.engine.optim import flatten
from trainables.engine.packs import in_lane

SHAPE = tiny(rwalk)
HYPER = rwalk.Hyper(lr=0.02, beta1=0.8, rwalk=3.0, interval=3, fisher_rate=0.7, damping=1e-4)


def minibatch(task, s):
    rows = torch.randint(len(task.y), (8,), generator=generator(s))
    return task._replace(x=task.x[rows], y=task.y[rows])


def scaled(values):
    return (values - values.min()) / (values.max() - values.min())


def in_plain_torch(stream, net, params, tasks, steps):
    """Weights, F̂ + ŝ and F after some tasks, by autograd and ``torch.optim``."""
    params = {name: leaf.clone().requires_grad_() for name, leaf in params.items()}
    leaves = list(params.values())
    flat = lambda tensors: torch.cat([t.detach().reshape(-1) for t in tensors])  # noqa: E731
    anchor, zero = flat(leaves), torch.zeros_like(flat(leaves))
    kept, fisher, scores = zero, zero, []
    for t in range(tasks):
        task, scores = stream.batch(t), [*scores, zero]
        optimizer = torch.optim.Adam(leaves, lr=0.02, betas=(0.8, 0.999))
        slopes, moves = [], []
        for s in range(steps):
            batch = minibatch(task, 100 * t + s)
            columns = batch.seen.nonzero()[:, 0]
            target = torch.searchsorted(columns, batch.y)
            new = F.cross_entropy(net.apply(params, batch.x)[:, columns], target)
            slopes.append(flat(torch.autograd.grad(new, leaves, retain_graph=True)))
            away = torch.cat([leaf.reshape(-1) for leaf in leaves]) - anchor
            optimizer.zero_grad()
            (new + 3.0 * (kept * away.square()).sum()).backward()
            before = flat(leaves)
            optimizer.step()
            moves.append(flat(leaves) - before)
            if len(slopes) == 3:
                g, moved = torch.stack(slopes), torch.stack(moves)
                fisher = 0.7 * g.square().mean(0) + 0.3 * fisher
                gain = (-g * moved).sum(0).clamp_min(0)
                scores[t] = scores[t] + gain / (0.5 * fisher * moved.sum(0) ** 2 + 1e-4)
                slopes, moves = [], []
        mean = scores[0]
        for own in scores[1:]:
            mean = (mean + own) / 2
        kept, anchor = scaled(fisher) + scaled(mean), flat(leaves)
    return anchor, kept, fisher


def test_steps_and_importances_are_those_of_plain_torch(blobs):
    method, hyper = rwalk.build(blobs.problem, SHAPE), in_lane(HYPER, F64)
    net, state = classifier.network(blobs.problem, SHAPE), method.init(generator(0))
    expected = in_plain_torch(blobs, net, state.params, tasks=3, steps=8)
    for t in range(3):
        task = blobs.batch(t)
        state = method.begin_task(state, method.init(generator(9)), task, hyper)
        for s in range(8):
            state, terms = method.steps["train"](state, minibatch(task, 100 * t + s), hyper, {})
            if t == 0:
                assert terms["rwalk"] == terms["raw_coefficient"] == 0
        state = method.end_task(state, task, hyper, {})
    found = flatten(state.params), state.importance, state.walk.fisher
    torch.testing.assert_close(found, expected)
    task = minibatch(blobs.batch(0), 0)
    fisher, (_, terms) = expected[2], method.steps["train"](state, task, hyper, {})
    torch.testing.assert_close(terms["raw_coefficient"], 3.0 / (fisher.max() - fisher.min()))


def test_a_score_by_hand():
    """Two steps: F = 0.5 · 8/2 + 0.5 · 4 = 4; 6 / (½ 4 · 2² + 1) = 2/3 beside the 1 of before."""
    one = torch.ones(2, dtype=F64)
    path = torch.tensor([6.0, -6.0], dtype=F64)
    walk = rwalk.Walk(-one, path, 8 * one, torch.tensor(2.0, dtype=F64), 4 * one, one)
    hyper = in_lane(HYPER._replace(fisher_rate=0.5, damping=1.0), F64)
    found = rwalk.scored(walk, one, hyper)
    torch.testing.assert_close(found.fisher, 4 * one)
    torch.testing.assert_close(found.score, torch.tensor([1 + 2 / 3, 1.0], dtype=F64))
    torch.testing.assert_close(found.start, one, **EXACTLY)
    assert not found.path.any() and not found.squares.any() and found.count == 0


def test_a_task_shorter_than_an_interval_leaves_nothing_to_hold(blobs):
    method, hyper = rwalk.build(blobs.problem, SHAPE), in_lane(HYPER, F64)
    state, task = method.init(generator(0)), blobs.batch(0)
    for _ in range(2):
        state, _ = method.steps["train"](state, task, hyper, {})
    state = method.end_task(state, task, hyper, {})
    assert not state.importance.any()
    _, terms = method.steps["train"](state, task, hyper, {})
    assert terms["rwalk"] == terms["raw_coefficient"] == 0


@pytest.mark.parametrize("interval", [1, 10])
def test_without_a_penalty_it_is_sequential_and_with_a_large_one_it_stays(interval, blobs_by_task):
    stream, own = first_tasks(blobs_by_task, 2), {"steps": 60, "lr": 0.01}
    method = rwalk.build(stream.problem, SHAPE)
    trials = [(rwalk.Hyper(rwalk=w, interval=interval, **own), 0) for w in (0.0, 0.1, 1e3)]
    walks = learn(method, stream, trials)
    plain = sequential.build(stream.problem, tiny(sequential))
    (free,) = learn(plain, stream, [(sequential.Hyper(**own), 0)])
    torch.testing.assert_close(walks[0].state.params, free.state.params)
    (first,) = learn(method, first_tasks(stream, 1), trials[:1])
    kept, start = first.state.importance, first.state.anchor
    away = [float((kept * (flatten(w.state.params) - start).square()).sum()) for w in walks]
    assert away[0] > 3 * away[1] > 9 * away[2] > 0
