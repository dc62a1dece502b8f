"""LGM with a static memory: what is stored, and that it is what is rehearsed."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._pytree import tree_map

from tests.conftest import EXACTLY, F64, first_tasks, generator, tiny
from trainables import lgm_memory
from trainables.engine.learn import learn
from trainables.engine.method import Batch
from trainables.engine.packs import in_lane

SHAPE = tiny(lgm_memory)._replace(memory_per_class=5)
HYPER = lgm_memory.Hyper(
    classifier_lr=0.017,
    classifier_beta1=0.5,
    classifier_beta2=0.99,
    classifier_rehearsal=0.6,
)


def lane(hyper=HYPER):
    return in_lane(hyper, F64)


def drawn(method, phase, task, seed=4):
    noise = method.draw(generator(seed), phase, 1, task, HYPER)
    return tree_map(lambda leaf: leaf[0], noise)


def after(method, state, task):
    return method.end_task(state, task, lane(), drawn(method, "end_task", task))


# ---- what is stored ------------------------------------------------------------------------------


def task_of(y, classes=4, current=(0, 2)):
    x = torch.arange(float(len(y)))[:, None].expand(-1, 3)  # row i holds i
    mask = torch.zeros(classes, dtype=torch.bool)
    mask[list(current)] = True
    return Batch(x, torch.tensor(y), mask, ~mask, mask.repeat(classes, 1))


def test_the_first_of_a_random_order_are_stored_and_all_where_there_are_fewer():
    task = task_of([0, 2, 0, 0, 2, 0])
    order = torch.tensor([0.5, 0.9, 0.1, 0.7, 0.2, 0.3])
    before = torch.full((4, 3, 3), -1.0)
    memory = lgm_memory.stored(before, task, order)
    assert memory[0, :, 0].tolist() == [2, 5, 0]
    assert memory[2, :, 0].tolist() == [4, 1, 4]  # two examples for three slots
    torch.testing.assert_close(memory[[1, 3]], before[[1, 3]], **EXACTLY)
    assert (memory == memory[..., :1]).all()  # whole examples


def test_every_example_is_stored_as_often_as_any_other():
    task, counts = task_of([0, 2] * 10), torch.zeros(20)
    g = generator(0)
    for _ in range(2000):
        memory = lgm_memory.stored(torch.zeros(4, 3, 3), task, torch.rand(20, generator=g))
        for c in (0, 2):
            assert len(memory[c, :, 0].unique()) == 3
            counts[memory[c, :, 0].long()] += 1
    assert ((counts - 600).abs() < 5 * (2000 * 0.3 * 0.7) ** 0.5).all()


def test_what_was_stored_stays(blobs):
    method = lgm_memory.build(blobs.problem, SHAPE)
    state = after(method, method.init(generator(0)), blobs.batch(0))
    later = method.begin_task(state, method.init(generator(1)), blobs.batch(1), lane())
    later = after(method, later, blobs.batch(1))
    first, second = blobs.batch(0).current, blobs.batch(1).current
    torch.testing.assert_close(later.memory[first], state.memory[first], **EXACTLY)
    for t, mask in enumerate((first, second)):
        task = blobs.batch(t)
        for c in mask.nonzero()[:, 0]:
            own = task.x[task.y == c]
            assert all((own == row).all(-1).any() for row in later.memory[c])
    assert not later.memory[~(first | second)].any()


# ---- what is rehearsed ---------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["blobs", "blobs_by_task"])
def test_steps_are_those_of_plain_torch(scenario, request):
    stream = request.getfixturevalue(scenario)
    method = lgm_memory.build(stream.problem, SHAPE)
    state = after(method, method.init(generator(0)), stream.batch(0))
    task = stream.batch(1)
    leaves = {k: p.clone().requires_grad_() for k, p in state.classifier.items()}
    adam = torch.optim.Adam(leaves.values(), lr=0.017, betas=(0.5, 0.99))

    def loss(x, y):
        hidden = F.relu(F.linear(x, leaves["w0"].T, leaves["b0"]))
        logits = F.linear(hidden, leaves["w1"].T, leaves["b1"])
        kept = [
            F.cross_entropy(row[task.rivals[c]], task.rivals[c].cumsum(0)[c] - 1)
            for row, c in zip(logits, y, strict=True)
        ]
        return torch.stack(kept).mean()

    for step in range(7):
        i = torch.randint(len(task.y), (SHAPE.batch_size,), generator=generator(step))
        noise = drawn(method, "classifier", task, seed=10 + step)
        batch = task._replace(x=task.x[i], y=task.y[i])
        y = noise["y_replay"]
        assert task.learned[y].all()
        old = torch.stack(
            [state.memory[c, int(5 * u)] for c, u in zip(y, noise["slot"], strict=True)]
        )
        expected = {"classifier": loss(batch.x, batch.y), "classifier_rehearsal": loss(old, y)}
        adam.zero_grad()
        (expected["classifier"] + 0.6 * expected["classifier_rehearsal"]).backward()
        adam.step()
        state, terms = method.steps["classifier"](state, batch, lane(), noise)
        torch.testing.assert_close(terms, {k: v.detach() for k, v in expected.items()})
    found = {k: p.detach() for k, p in leaves.items()}
    torch.testing.assert_close(state.classifier, found, rtol=1e-9, atol=1e-9)


def test_nothing_is_rehearsed_in_the_first_task(blobs):
    method, task = lgm_memory.build(blobs.problem, SHAPE), blobs.batch(0)
    state, batch = method.init(generator(0)), task._replace(x=task.x[:8], y=task.y[:8])
    noise = drawn(method, "classifier", task)
    moved, terms = method.steps["classifier"](state, batch, lane(), noise)
    off = lane(HYPER._replace(classifier_rehearsal=0.0))
    plain, _ = method.steps["classifier"](state, batch, off, noise)
    assert terms["classifier_rehearsal"] == 0
    torch.testing.assert_close(moved, plain, **EXACTLY)


@pytest.mark.parametrize("reset", [True, False])
def test_the_start_of_a_task(reset, blobs):
    method = lgm_memory.build(blobs.problem, SHAPE)
    worn, fresh = (method.init(generator(seed)) for seed in (0, 1))
    hyper = lane(HYPER._replace(reset_classifier=reset))
    begun = method.begin_task(worn, fresh, blobs.batch(1), hyper)
    expected = fresh.classifier if reset else worn.classifier
    torch.testing.assert_close(begun.classifier, expected, **EXACTLY)


def test_its_memory_counts(blobs):
    method = lgm_memory.build(blobs.problem, SHAPE)
    _, memory = method.carried(method.init(generator(0)))
    assert memory.shape == (6, 5, 8)


def test_rehearsal_keeps_what_fine_tuning_forgets(blobs):
    stream, shape = first_tasks(blobs, 2), lgm_memory.Shape("perceptron", 32, 1, 10, 16, 16)
    hyper = lgm_memory.Hyper(classifier_steps=60, classifier_lr=1e-2)
    off = hyper._replace(classifier_rehearsal=0.0)
    with_memory, without = learn(
        lgm_memory.build(stream.problem, shape), stream, [(hyper, 0), (off, 0)]
    )
    assert with_memory.accuracy[1].min() > 0.9
    assert without.accuracy[1, 0] < 0.6
