"""Joint training: steps against ``torch.nn`` and ``torch.optim``, and that nothing is forgotten."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.conftest import EXACTLY, F64, generator, tiny
from trainables import joint
from trainables.engine.learn import learn, learn_task
from trainables.engine.packs import Engine, in_lane

SHAPE = tiny(joint)


def lane(hyper):
    return in_lane(hyper, F64)


def test_steps_are_those_of_torch(blobs):
    method, task = joint.build(blobs.problem, SHAPE), blobs.batch(2, "seen")
    state = method.init(generator(0))
    net = nn.Sequential(nn.Linear(8, 8, dtype=F64), nn.ReLU(), nn.Linear(8, 6, dtype=F64))
    weights = [state.params["w0"].T, state.params["b0"], state.params["w1"].T, state.params["b1"]]
    net.load_state_dict(dict(zip(net.state_dict(), weights, strict=True)))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02, betas=(0.8, 0.999))
    for s in range(5):
        rows = torch.randint(len(task.y), (SHAPE.batch_size,), generator=generator(s))
        batch = task._replace(x=task.x[rows], y=task.y[rows])
        hyper = lane(joint.Hyper(lr=0.02, beta1=0.8))
        state, terms = method.steps["train"](state, batch, hyper, {})
        loss = F.cross_entropy(net(batch.x), batch.y)  # all six classes are seen
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        torch.testing.assert_close(terms, {"cross_entropy": loss.detach()})
    torch.testing.assert_close(
        method.predict(state, task.x), net(task.x).detach(), rtol=1e-9, atol=1e-9
    )


def test_smoothing_reaches_the_loss(blobs):
    method, task = joint.build(blobs.problem, SHAPE), blobs.batch(2, "seen")
    state = method.init(generator(0))
    _, terms = method.steps["train"](state, task, lane(joint.Hyper(label_smoothing=0.3)), {})
    target = F.one_hot(task.y, 6) * 0.64 + 0.06  # 0.7 for the true class, 0.3 / 5 for the others
    expected = F.cross_entropy(method.predict(state, task.x), target)
    torch.testing.assert_close(terms["cross_entropy"], expected)


def test_steps_grow_with_the_tasks_seen(blobs):
    method = joint.build(blobs.problem, SHAPE)
    programs = [method.schedule(joint.Hyper(steps=7), t) for t in range(3)]
    assert programs == [[("train", 7)], [("train", 14)], [("train", 21)]]


@pytest.mark.parametrize("from_scratch", [True, False])
def test_a_task_starts_from_fresh_weights_or_from_the_last_ones(from_scratch, blobs):
    method, hyper = joint.build(blobs.problem, SHAPE), lane(joint.Hyper(from_scratch=from_scratch))
    task = blobs.batch(0)
    state, _ = method.steps["train"](method.init(generator(0)), task, hyper, {})
    fresh = method.init(generator(1))
    begun = method.begin_task(state, fresh, task, hyper)
    torch.testing.assert_close(begun.params, (fresh if from_scratch else state).params, **EXACTLY)
    assert not any(leaf.any() for leaf in begun.moments)


def test_it_is_trained_on_all_data_so_far(blobs):
    """Where it never meets the first classes it cannot know them: they are in the batches."""
    method = joint.build(blobs.problem, SHAPE)
    assert method.data == "seen"
    (walked,) = learn(method, blobs, [(joint.Hyper(steps=80, lr=1e-2), 0)])
    assert walked.accuracy[2].min() > 0.9

    engine = Engine(method, blobs.problem)
    lanes = [engine.start(joint.Hyper(steps=80, lr=1e-2), 0)]
    (latest_only,) = learn_task(engine, lanes, blobs.batch(2, "task"), 2)
    (row,) = engine.evaluate(
        [latest_only.state], [task.validation for task in blobs.tasks], blobs.rivals(2)
    )
    assert row[:2].max() < 0.1
