"""EWC: its penalty against the sum over tasks written out, and what it is for."""

import pytest
import torch
from torch.func import grad

from tests.conftest import EXACTLY, F64, clone, first_tasks, generator, tiny
from trainables import ewc, sequential
from trainables.engine import importance
from trainables.engine.learn import learn
from trainables.engine.losses import cross_entropy
from trainables.engine.optim import flatten, unflatten
from trainables.engine.packs import in_lane

SHAPE = tiny(ewc)
HYPER = ewc.Hyper(steps=20, lr=0.01, ewc=3.0, label_smoothing=0.1)


def lane(**changes):
    return in_lane(HYPER._replace(**changes), F64)


def after_tasks(stream, hyper, shape=SHAPE, tasks=3):
    """The method, its state after so many tasks, and the weights and F at the end of each."""
    method, ends, fishers = ewc.build(stream.problem, shape), [], []
    state = method.init(generator(0))
    for t in range(tasks):
        task = stream.batch(t)
        state = method.begin_task(state, method.init(generator(9)), task, hyper)
        for s in range(12):
            rows = torch.randint(len(task.y), (8,), generator=generator(s))
            batch = task._replace(x=task.x[rows], y=task.y[rows])
            state, _ = method.steps["train"](state, batch, hyper, {})
        noise = method.draw(generator(t), "end_task", 1, task, HYPER)
        noise = {name: leaf[0] for name, leaf in noise.items()}
        state = method.end_task(state, task, hyper, noise)
        net = ewc.classifier.network(stream.problem, shape)
        some = importance.chosen(task, noise["order"], shape.importance_examples)
        ends.append(flatten(state.params))
        fishers.append(importance.exact_fisher(net.apply, state.params, some))
    return method, net, state, ends, fishers


@pytest.mark.parametrize("scenario", ["blobs", "blobs_by_task"])
@pytest.mark.parametrize("online", [True, False])
def test_the_loss_is_that_of_the_equations(online, scenario, request):
    stream, hyper = request.getfixturevalue(scenario), lane(online=online, decay=0.7)
    _, net, state, ends, fishers = after_tasks(stream, hyper)
    units = [f / f.mean() for f in fishers]
    task, g = stream.batch(2), generator(5)
    for _ in range(3):
        flat = flatten(state.params) + torch.randn(len(ends[0]), generator=g, dtype=F64)
        params = unflatten(flat, state.params)
        if online:
            kept = 0.7**2 * units[0] + 0.7 * units[1] + units[2]
            expected = 0.5 * (kept * (flat - ends[2]).square()).sum()
            slope = kept * (flat - ends[2])
        else:
            pairs = list(zip(units, ends, strict=True))
            expected = 0.5 * sum((f * (flat - end).square()).sum() for f, end in pairs)
            slope = sum(f * (flat - end) for f, end in pairs)
        new = cross_entropy(net.apply(params, task.x), task.y, task.rivals[task.y], 0.1)
        about = state, task, hyper, {}, net
        value, terms = ewc.loss(params, *about)
        torch.testing.assert_close(terms["ewc"], expected)
        torch.testing.assert_close(value, new + 3.0 * expected)
        slopes = [
            flatten(grad(lambda p, w=w: ewc.loss(p, state, task, w, {}, net)[0])(params))
            for w in (hyper, hyper._replace(ewc=torch.zeros((), dtype=F64)))
        ]
        torch.testing.assert_close(slopes[0] - slopes[1], 3.0 * torch.as_tensor(slope))
    torch.testing.assert_close(terms["raw_coefficient"], 3.0 / fishers[-1].mean())


def test_nothing_is_held_in_the_first_task(blobs):
    method = ewc.build(blobs.problem, SHAPE)
    _, terms = method.steps["train"](method.init(generator(0)), blobs.batch(0), lane(), {})
    assert terms["ewc"] == terms["raw_coefficient"] == 0


@pytest.mark.parametrize("labels", ewc.LABELS)
def test_importances_are_of_the_labels_that_the_shape_names(labels, blobs):
    shape = SHAPE._replace(importance_labels=labels)
    state = after_tasks(blobs, lane(), shape, tasks=1)[2]
    others = {
        other: after_tasks(blobs, lane(), SHAPE._replace(importance_labels=other), tasks=1)[2]
        for other in ewc.LABELS
    }
    for other, one in others.items():
        assert torch.equal(state.importance, one.importance) == (other == labels)


def test_unknown_labels_are_refused(blobs):
    with pytest.raises(ValueError, match="unknown importance_labels 'exat': did you mean 'exact'"):
        ewc.build(blobs.problem, SHAPE._replace(importance_labels="exat"))


def test_importances_are_a_function_of_the_finished_task(blobs):
    """Neither the next task nor what its optimiser does is in them."""
    method, _, state, *_ = after_tasks(blobs, lane(), tasks=1)
    before = clone(state)
    task = blobs.batch(1)
    begun = method.begin_task(state, method.init(generator(4)), task, lane())
    for name in ("importance", "anchor", "rest", "unit"):
        torch.testing.assert_close(getattr(begun, name), getattr(before, name), **EXACTLY)
    moved, _ = method.steps["train"](begun, task, lane(), {})
    torch.testing.assert_close(moved.importance, before.importance, **EXACTLY)


def test_without_a_penalty_it_is_sequential(blobs):
    own = {"steps": 30, "lr": 0.01, "label_smoothing": 0.1}
    (held,) = learn(ewc.build(blobs.problem, SHAPE), blobs, [(ewc.Hyper(ewc=0.0, **own), 0)])
    plain = sequential.build(blobs.problem, tiny(sequential))
    (free,) = learn(plain, blobs, [(sequential.Hyper(**own), 0)])
    torch.testing.assert_close(held.state.params, free.state.params)


@pytest.mark.parametrize("online", [True, False])
def test_it_holds_on_to_the_first_task_where_each_task_has_its_own_logits(online, blobs_by_task):
    stream = first_tasks(blobs_by_task, 2)
    method = ewc.build(stream.problem, SHAPE)
    trials = [(HYPER._replace(steps=100, ewc=w, online=online), 0) for w in (0.0, 0.1, 1e3)]
    (first,) = learn(method, first_tasks(stream, 1), trials[:1])
    kept, start = first.state.importance, first.state.anchor
    away = [
        float((kept * (flatten(walk.state.params) - start).square()).sum())
        for walk in learn(method, stream, trials)
    ]
    assert away[0] > 3 * away[1] > 9 * away[2] >= 0
