"""LwF: steps against plain torch beside a copy of the network, and what the copy is for."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad
from torch.utils._pytree import tree_leaves

from tests.conftest import EXACTLY, F64, clone, first_tasks, generator, tiny
from trainables import lwf, sequential
from trainables.engine import classifier
from trainables.engine.learn import learn
from trainables.engine.packs import in_lane

SHAPE = tiny(lwf)
HYPER = lwf.Hyper(lr=0.02, beta1=0.8, lwf=3.0, temperature=2.0, hint=5.0, similarity=7.0)


def minibatch(task, s):
    rows = torch.randint(len(task.y), (8,), generator=generator(s))
    return task._replace(x=task.x[rows], y=task.y[rows])


def after_tasks(stream, hyper, tasks, steps=8):
    """The method, and its state at the start of the task after so many."""
    method, lane = lwf.build(stream.problem, SHAPE), in_lane(hyper, F64)
    ((phase, _),) = method.schedule(hyper, 0)
    state = method.init(generator(0))
    for t in range(tasks + 1):
        task = stream.batch(t)
        state = method.begin_task(state, method.init(generator(9)), task, lane)
        for s in range(steps if t < tasks else 0):
            state, _ = method.steps[phase](state, minibatch(task, 100 * t + s), lane, {})
        state = method.end_task(state, task, lane, {}) if t < tasks else state
    return method, phase, state


def extra_of(hyper, h, old):
    if hyper.extra == "hint":
        return F.mse_loss(h, old)
    if hyper.extra == "similarity":
        rows, before = (F.normalize(a @ a.T) for a in (h, old))
        return (rows - before).square().sum() / len(h)
    return torch.zeros((), dtype=F64)


@pytest.mark.parametrize("extra", ["none", "hint", "similarity"])
@pytest.mark.parametrize("per_task", [True, False])
@pytest.mark.parametrize("scenario", ["blobs", "blobs_by_task"])
def test_steps_are_those_of_plain_torch(scenario, per_task, extra, request):
    stream = request.getfixturevalue(scenario)
    hyper = HYPER._replace(per_task=per_task, extra=extra)
    method, phase, state = after_tasks(stream, hyper, tasks=2)
    teacher, task = clone(state.params), stream.batch(2)
    params = {name: leaf.clone().requires_grad_() for name, leaf in state.params.items()}
    optimizer = torch.optim.Adam(params.values(), lr=0.02, betas=(0.8, 0.999))
    tasks = [stream.batch(t).current.nonzero()[:, 0] for t in range(3)]
    groups = tasks[:2] if per_task else [torch.cat(tasks[:2])]
    columns = torch.cat(tasks) if scenario == "blobs" else tasks[2]

    def forward(p, x):
        h = (x @ p["w0"] + p["b0"]).relu()
        return h, h @ p["w1"] + p["b1"]

    for s in range(5):
        batch = minibatch(task, s)
        state, terms = method.steps[phase](state, batch, in_lane(hyper, F64), {})
        (h, logits), (old, old_logits) = forward(params, batch.x), forward(teacher, batch.x)
        target = (batch.y[:, None] == columns).int().argmax(-1)
        new = F.cross_entropy(logits[:, columns], target)
        kept = torch.zeros((), dtype=F64)
        for g in groups:
            p, q = ((z[:, g] / 2).softmax(-1) for z in (logits, old_logits))
            kept = kept + 4 * (q * (q.log() - p.log())).sum(-1).mean()
        more = extra_of(hyper, h, old)
        weight = {"none": 0.0, "hint": 5.0, "similarity": 7.0}[extra]
        optimizer.zero_grad()
        (new + 3 * kept + weight * more).backward()
        optimizer.step()
        expected = {"cross_entropy": new, "lwf": kept}
        expected |= {extra: more} if extra != "none" else {}
        torch.testing.assert_close(terms, {k: v.detach() for k, v in expected.items()})
    found = {name: leaf.detach() for name, leaf in params.items()}
    torch.testing.assert_close(state.params, found)
    torch.testing.assert_close(state.frozen, teacher, **EXACTLY)


@pytest.mark.parametrize("extra", ["none", "hint", "similarity"])
def test_in_the_first_task_nothing_is_kept(extra, blobs):
    method, phase, state = after_tasks(blobs, HYPER._replace(extra=extra), tasks=0)
    lane, task = in_lane(HYPER, F64), blobs.batch(0)
    for s in range(3):
        state, terms = method.steps[phase](state, minibatch(task, s), lane, {})
        assert not any(value for name, value in terms.items() if name != "cross_entropy")


@pytest.mark.parametrize("scenario", ["blobs", "blobs_by_task"])
def test_classes_that_were_learned_together_share_a_softmax(scenario, request):
    stream = request.getfixturevalue(scenario)
    state, task = after_tasks(stream, HYPER, tasks=2)[2], stream.batch(2)
    for per_task in (True, False):
        lane = in_lane(HYPER._replace(per_task=per_task), F64)
        group = lwf.distill.groups(state, task, lane)
        for a in range(6):
            for b in range(6):
                old = bool(task.learned[a] and task.learned[b])
                same = any(bool(stream.current(t)[[a, b]].all()) for t in range(3))
                assert (group[a] == group[b]) == (a == b or (old and (same or not per_task)))


def test_the_teacher_has_no_slope_and_all_of_the_student_has(blobs):
    """Of one backward step through both, only what belongs to the student is taken."""
    _, _, state = after_tasks(blobs, HYPER, tasks=1)
    net, task = classifier.network(blobs.problem, SHAPE), blobs.batch(1)
    moved = {name: leaf + 0.1 for name, leaf in state.params.items()}
    for extra, term in [("train", "lwf"), ("hint", "hint"), ("similarity", "similarity")]:
        of_term = lambda p, e=extra, t=term: lwf.loss(  # noqa: E731
            p, state, task, in_lane(HYPER, F64), {}, net, e
        )[1][t]
        slopes = grad(of_term)(moved)
        assert slopes["w0"].any() and bool(slopes["w1"].any()) == (term == "lwf")
        alone = grad(of_term)(state.params)  # where student and teacher are one: its least
        assert all(leaf.abs().max() < 1e-12 for leaf in tree_leaves(alone))


def test_without_distillation_it_is_sequential_and_with_much_it_forgets_less(blobs_by_task):
    own = {"steps": 100, "lr": 0.01}
    method = lwf.build(blobs_by_task.problem, SHAPE)
    trials = [(lwf.Hyper(lwf=w, **own), 0) for w in (0.0, 1.0, 100.0)]
    walks = learn(method, first_tasks(blobs_by_task, 2), trials)
    plain = sequential.build(blobs_by_task.problem, tiny(sequential))
    (free,) = learn(plain, first_tasks(blobs_by_task, 2), [(sequential.Hyper(**own), 0)])
    torch.testing.assert_close(walks[0].state.params, free.state.params)
    kept = [walk.losses[1]["lwf"] for walk in walks]
    assert kept[0] > 3 * kept[1] > 3 * kept[2] > 0
