"""A-GEM: the projection and what it promises, and steps against plain torch."""

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import EXACTLY, F64, generator, tiny
from trainables import agem
from trainables.engine import classifier
from trainables.engine.checkpoint import size_in_bytes
from trainables.engine.learn import learn
from trainables.engine.optim import flatten
from trainables.engine.packs import in_lane

SHAPE = tiny(agem)._replace(replay_batch_size=12, optimizer="sgd")
HYPER = agem.Hyper(steps=20, lr=0.05, beta1=0.0)


def drawn(method, phase, task, seed=4):
    noise = method.draw(generator(seed), phase, 1, task, HYPER)
    return {name: leaf[0] for name, leaf in noise.items()}


def minibatch(task, seed):
    rows = torch.randint(len(task.y), (SHAPE.batch_size,), generator=generator(seed))
    return task._replace(x=task.x[rows], y=task.y[rows])


def in_the_second_task(stream, steps=30):
    """The method, its state after so many steps in the first task and its end, the second one."""
    method, hyper = agem.build(stream.problem, SHAPE), in_lane(HYPER, F64)
    state, task = method.init(generator(0)), stream.batch(0)
    for s in range(steps):
        state, _ = method.steps["train"](state, minibatch(task, s), hyper, drawn(method, "", task))
    state = method.end_task(state, task, hyper, drawn(method, "end_task", task))
    return method, state, stream.batch(1), hyper


# ---- the projection ------------------------------------------------------------------------------


def test_what_is_left_of_an_opposed_gradient_is_orthogonal_to_the_reference():
    g, r = torch.randn(2, 50, generator=generator(0), dtype=F64)
    r = r - 3 * g
    assert g @ r < 0
    found = agem.projected(g, r)
    assert abs(found @ r) <= 2 * agem.EPSILON * abs(g @ r) / (r @ r)  # ε is all that is missing
    rest = g - found  # nothing but a multiple of r was taken away
    torch.testing.assert_close(rest, r * (rest @ r) / (r @ r))
    closest = torch.linalg.qr(r[:, None], mode="complete").Q[:, 1:]  # what is orthogonal to r
    torch.testing.assert_close(found, closest @ (closest.T @ g), rtol=1e-7, atol=1e-7)


def test_a_gradient_that_agrees_is_left_alone():
    g, r = torch.randn(2, 50, generator=generator(0), dtype=F64)
    r = r + 3 * g
    assert g @ r > 0
    torch.testing.assert_close(agem.projected(g, r), g, **EXACTLY)


@pytest.mark.parametrize("size", [0.0, 1e-200, -1e-12])
def test_a_reference_that_vanishes_changes_nothing(size):
    g = torch.randn(50, generator=generator(0), dtype=F64)
    torch.testing.assert_close(agem.projected(g, size * g), g)


# ---- steps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["blobs", "blobs_by_task"])
def test_steps_are_those_of_plain_torch(scenario, request):
    stream = request.getfixturevalue(scenario)
    method, state, task, hyper = in_the_second_task(stream)
    net = classifier.network(stream.problem, SHAPE)
    leaves = {k: p.clone().requires_grad_() for k, p in state.params.items()}
    opposed = 0

    def loss(x, y):
        kept = [
            F.cross_entropy(row[task.rivals[c]], task.rivals[c].cumsum(0)[c] - 1)
            for row, c in zip(net.apply(leaves, x), y, strict=True)
        ]
        return torch.stack(kept).mean()

    def slope(value):
        return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(leaves.values()))])

    for s in range(12):
        batch, noise = minibatch(task, s), drawn(method, "train", task, 10 + s)
        rows = [int(20 * u) for u in noise["chance"]]
        old_x, old_y = state.memory.x[rows], state.memory.y[rows]
        assert task.learned[old_y].all()
        new, old = loss(batch.x, batch.y), loss(old_x, old_y)
        g, r = slope(new), slope(old)
        against = bool(g @ r < 0)
        opposed += against
        if against:
            g = g - (g @ r) / (r @ r + 1e-7) * r
        with torch.no_grad():
            for leaf, part in zip(
                leaves.values(), g.split([p.numel() for p in leaves.values()]), strict=True
            ):
                leaf -= 0.05 * part.view_as(leaf)
        state, terms = method.steps["train"](state, batch, hyper, noise)
        expected = {"cross_entropy": new.detach(), "rehearsal": old.detach()}
        found = terms.pop("projected")
        assert found == against
        torch.testing.assert_close(terms, expected)
    assert opposed == 12 if scenario == "blobs" else opposed > 0
    found = {k: p.detach() for k, p in leaves.items()}
    torch.testing.assert_close(state.params, found, rtol=1e-9, atol=1e-9)


def test_a_step_does_not_raise_the_loss_on_what_was_drawn(blobs):
    """To first order: its part of second order shrinks with the square of the rate."""
    method, state, task, _ = in_the_second_task(blobs)
    net, noise = classifier.network(blobs.problem, SHAPE), drawn(method, "train", task)
    rows = (20 * noise["chance"]).long()
    replayed = state.memory.x[rows], state.memory.y[rows], task.rivals
    rose = []
    for lr in (1e-4, 1e-5):
        hyper = in_lane(HYPER._replace(lr=lr), F64)
        moved, terms = method.steps["train"](state, minibatch(task, 0), hyper, noise)
        assert terms["projected"]
        before, after = (
            agem.loss(one.params, *replayed, hyper=hyper, net=net) for one in (state, moved)
        )
        assert not torch.equal(flatten(moved.params), flatten(state.params))
        rose.append(float(after - before))
    assert abs(rose[0]) < 1e-6
    assert abs(rose[1]) < 0.02 * abs(rose[0])


def test_the_first_task_is_plain_descent(blobs):
    method, hyper, task = agem.build(blobs.problem, SHAPE), in_lane(HYPER, F64), blobs.batch(0)
    net, state = classifier.network(blobs.problem, SHAPE), method.init(generator(0))
    known = task.current.nonzero()[:, 0]
    # Whatever an empty memory says when it is asked, were it the opposite of what is learned.
    x = task.x[task.y == known[1]][:20]
    state = state._replace(memory=state.memory._replace(x=x, y=known[:1].expand(20)))
    leaves = {k: p.clone().requires_grad_() for k, p in state.params.items()}
    sgd = torch.optim.SGD(leaves.values(), lr=0.05)
    for s in range(5):
        batch, noise = minibatch(task, s), drawn(method, "train", task, s)
        sgd.zero_grad()
        target = torch.searchsorted(known, batch.y)
        F.cross_entropy(net.apply(leaves, batch.x)[:, known], target).backward()
        sgd.step()
        state, terms = method.steps["train"](state, batch, hyper, noise)
        assert terms["rehearsal"] == terms["projected"] == 0
    torch.testing.assert_close(state.params, {k: p.detach() for k, p in leaves.items()})


def test_its_memory_counts(blobs):
    state = agem.build(blobs.problem, SHAPE).init(generator(0))
    weights = 8 * ((8 + 1) * 8 + (8 + 1) * 6)
    found = size_in_bytes(agem.build(blobs.problem, SHAPE).carried(state))
    assert found == weights + 20 * 8 * (8 + 1 + 1) + 8


@pytest.mark.parametrize(("optimizer", "lr", "beta1"), [("adam", 0.01, 0.9), ("sgd", 0.3, 0.0)])
def test_it_learns_and_keeps_where_tasks_are_told(blobs_by_task, optimizer, lr, beta1):
    hyper = agem.Hyper(steps=150, lr=lr, beta1=beta1)
    shape = agem.Shape(
        hidden=32, batch_size=16, replay_batch_size=16, memory_size=60, optimizer=optimizer
    )
    (kept,) = learn(agem.build(blobs_by_task.problem, shape), blobs_by_task, [(hyper, 0)])
    assert kept.accuracy[2].min() > 0.9


def test_an_optimiser_is_one_of_two(blobs):
    with pytest.raises(ValueError, match="unknown optimizer 'adm': did you mean 'adam'"):
        agem.build(blobs.problem, SHAPE._replace(optimizer="adm"))
