"""MAS: its penalty against the equations written out, and that labels have no say in it."""

import torch
from torch.func import grad

from tests.conftest import F64, first_tasks, generator, tiny
from trainables import mas, sequential
from trainables.engine import classifier, importance
from trainables.engine.learn import learn
from trainables.engine.losses import cross_entropy
from trainables.engine.optim import flatten, unflatten
from trainables.engine.packs import in_lane

SHAPE = tiny(mas)._replace(importance_examples=30)
HYPER = mas.Hyper(steps=20, lr=0.01, mas=3.0, decay=0.7, label_smoothing=0.1)


def end(method, state, task, hyper, seed=0):
    noise = method.draw(generator(seed), "end_task", 1, task, HYPER)
    noise = {name: leaf[0] for name, leaf in noise.items()}
    return method.end_task(state, task, hyper, noise), importance.chosen(task, noise["order"], 30)


def test_the_loss_is_that_of_the_equations(blobs):
    method, hyper = mas.build(blobs.problem, SHAPE), in_lane(HYPER, F64)
    net, state = classifier.network(blobs.problem, SHAPE), method.init(generator(0))
    found = []
    for t in range(2):
        task = blobs.batch(t)
        for _ in range(5):
            state, _ = method.steps["train"](state, task, hyper, {})
        state, some = end(method, state, task, hyper, t)
        found.append(importance.sensitivity(net.apply, state.params, some))
    kept = 0.7 * found[0] / found[0].mean() + found[1] / found[1].mean()
    anchor, task = flatten(state.params), blobs.batch(2)
    flat = anchor + torch.randn(len(anchor), generator=generator(5), dtype=F64)
    params = unflatten(flat, state.params)
    value, terms = mas.loss(params, state, task, hyper, {}, net)
    new = cross_entropy(net.apply(params, task.x), task.y, task.rivals[task.y], 0.1)
    held = (kept * (flat - anchor).square()).sum()
    torch.testing.assert_close(terms["mas"], held)
    torch.testing.assert_close(terms["raw_coefficient"], 3.0 / found[1].mean())
    torch.testing.assert_close(value, new + 3.0 * held)
    slope = grad(lambda p: mas.loss(p, state, task, hyper, {}, net)[0])(params)
    own = grad(lambda p: cross_entropy(net.apply(p, task.x), task.y, task.rivals[task.y], 0.1))
    torch.testing.assert_close(
        flatten(slope) - flatten(own(params)), 2 * 3.0 * kept * (flat - anchor)
    )


def test_importances_know_no_label_and_no_later_task(blobs):
    method, hyper, task = mas.build(blobs.problem, SHAPE), in_lane(HYPER, F64), blobs.batch(1)
    state = method.init(generator(0))
    swapped = task._replace(y=task.current.nonzero()[:, 0].sum() - task.y)  # one for the other
    assert not torch.equal(swapped.y, task.y)
    expected = end(method, state, task, hyper)[0]
    torch.testing.assert_close(end(method, state, swapped, hyper)[0], expected)
    begun = method.begin_task(expected, method.init(generator(3)), blobs.batch(2), hyper)
    moved, _ = method.steps["train"](begun, blobs.batch(2), hyper, {})
    assert torch.equal(moved.importance, expected.importance)
    assert torch.equal(moved.anchor, expected.anchor)


def test_without_a_penalty_it_is_sequential_and_with_a_large_one_it_stays(blobs_by_task):
    stream = first_tasks(blobs_by_task, 2)
    own = {"steps": 60, "lr": 0.01, "label_smoothing": 0.1}
    method = mas.build(stream.problem, SHAPE)
    walks = learn(method, stream, [(mas.Hyper(mas=w, **own), 0) for w in (0.0, 0.1, 1e3)])
    plain = sequential.build(stream.problem, tiny(sequential))
    (free,) = learn(plain, stream, [(sequential.Hyper(**own), 0)])
    torch.testing.assert_close(walks[0].state.params, free.state.params)
    (first,) = learn(method, first_tasks(stream, 1), [(mas.Hyper(mas=0.0, **own), 0)])
    kept, start = first.state.importance, first.state.anchor
    away = [float((kept * (flatten(w.state.params) - start).square()).sum()) for w in walks]
    assert away[0] > 3 * away[1] > 9 * away[2] > 0
