"""Fine-tuning: steps against ``torch.nn`` and ``torch.optim``, and what it is known for."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainables
from tests.conftest import EXACTLY, F64, clone, first_tasks, generator, tiny
from trainables import sequential
from trainables.engine.learn import learn
from trainables.engine.packs import in_lane

SHAPE = tiny(sequential)


def lane(hyper):
    return in_lane(hyper, F64)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("layers", [1, 2])
def test_steps_are_those_of_torch(layers, smoothing, blobs):
    method = sequential.build(blobs.problem, SHAPE._replace(layers=layers))
    hyper = sequential.Hyper(lr=0.02, beta1=0.8, label_smoothing=smoothing)
    state, task = method.init(generator(0)), blobs.batch(1)

    modules = []
    for i in range(layers + 1):
        linear = nn.Linear(*state.params[f"w{i}"].shape, dtype=F64)
        linear.load_state_dict({"weight": state.params[f"w{i}"].T, "bias": state.params[f"b{i}"]})
        modules += [linear, nn.ReLU()]
    net = nn.Sequential(*modules[:-1])
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02, betas=(0.8, 0.999))

    seen = [c for one in blobs.tasks[:2] for c in one.classes]
    for s in range(5):
        rows = torch.randint(len(task.y), (SHAPE.batch_size,), generator=generator(s))
        x, y = task.x[rows], task.y[rows]
        batch = task._replace(x=x, y=y)
        state, terms = method.steps["train"](state, batch, lane(hyper), {})
        target = torch.full((len(y), 4), smoothing / 3, dtype=F64)
        target[torch.arange(len(y)), [seen.index(c) for c in y.tolist()]] = 1 - smoothing
        loss = F.cross_entropy(net(x)[:, seen], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        torch.testing.assert_close(terms, {"cross_entropy": loss.detach()})
    torch.testing.assert_close(
        method.predict(state, task.x), net(task.x).detach(), rtol=1e-9, atol=1e-9
    )


def test_a_task_starts_from_the_last_weights_with_a_new_optimiser(blobs):
    method, task = sequential.build(blobs.problem, SHAPE), blobs.batch(0)
    hyper = lane(sequential.Hyper())
    state, _ = method.steps["train"](method.init(generator(0)), task, hyper, {})
    before = clone(state)
    begun = method.begin_task(state, method.init(generator(1)), blobs.batch(1), hyper)
    torch.testing.assert_close(begun.params, before.params, **EXACTLY)
    assert not any(leaf.any() for leaf in begun.moments)


def test_every_task_has_the_same_steps(blobs):
    method = sequential.build(blobs.problem, SHAPE)
    programs = [method.schedule(sequential.Hyper(steps=7), t) for t in range(3)]
    assert programs == [[("train", 7)]] * 3
    assert method.data == "task"


@pytest.mark.parametrize("name", ["sequential", "ewc", "mas", "si", "rwalk"])
def test_tasks_that_share_no_weight_forget_exactly_nothing(name, blobs_by_task):
    """A layer from inputs to logits, of which each task has its own: neither the loss of a later
    task nor what holds weights may touch those of an earlier one, to the last bit."""
    module = trainables.load(name)
    shape = tiny(module)._replace(layers=0)
    method, hyper = module.build(blobs_by_task.problem, shape), module.Hyper(steps=40, lr=0.05)
    (short,) = learn(method, first_tasks(blobs_by_task, 1), [(hyper, 0)])
    (walk,) = learn(method, blobs_by_task, [(hyper, 0)])
    own = list(blobs_by_task.tasks[0].outputs)
    for part in ("w0", "b0"):
        before, after = (one.state.params[part] for one in (short, walk))
        assert torch.equal(before[..., own], after[..., own])
        assert not torch.equal(before, after)  # the others did learn
    assert all(walk.accuracy[t, t] == walk.accuracy[-1, t] for t in range(3))


def test_it_forgets_where_all_seen_classes_compete(blobs, blobs_by_task):
    trial = sequential.Hyper(steps=100, lr=1e-2), 0
    method = sequential.build(blobs.problem, SHAPE._replace(hidden=32))
    (by_class,) = learn(method, blobs, [trial])
    assert by_class.accuracy.diagonal().min() > 0.9
    assert by_class.accuracy[2, :2].max() < 0.2
    (by_task,) = learn(method, blobs_by_task, [trial])
    assert by_task.accuracy[2].min() > 0.9
