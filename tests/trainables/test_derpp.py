"""DER++: what is stored beside examples, and its loss one example at a time."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad

from tests.conftest import F64, first_tasks, generator, tiny
from trainables import derpp, er
from trainables.engine import classifier
from trainables.engine.checkpoint import size_in_bytes
from trainables.engine.learn import learn
from trainables.engine.optim import flatten
from trainables.engine.packs import in_lane

SHAPE = tiny(derpp)
HYPER = derpp.Hyper(steps=20, lr=0.02, beta1=0.8, logit_rehearsal=0.3, rehearsal=0.7)


def drawn(method, phase, task, seed=4):
    noise = method.draw(generator(seed), phase, 1, task, HYPER)
    return {name: leaf[0] for name, leaf in noise.items()}


def minibatch(task, seed):
    rows = torch.randint(len(task.y), (SHAPE.batch_size,), generator=generator(seed))
    return task._replace(x=task.x[rows], y=task.y[rows])


def after_tasks(stream, tasks, shape=SHAPE, steps=10):
    """The method, its state, and its weights at the end of each task."""
    method, hyper, ends = derpp.build(stream.problem, shape), in_lane(HYPER, F64), []
    state = method.init(generator(0))
    for t in range(tasks):
        task = stream.batch(t)
        state = method.begin_task(state, method.init(generator(9)), task, hyper)
        for s in range(steps):
            noise = drawn(method, "train", task, s)
            state, _ = method.steps["train"](state, minibatch(task, s), hyper, noise)
        state = method.end_task(state, task, hyper, drawn(method, "end_task", task, t))
        ends.append(state.params)
    return method, state, ends


# ---- what is stored ------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["reservoir", "balanced"])
@pytest.mark.parametrize("scenario", ["blobs", "blobs_by_task"])
def test_stored_logits_are_those_of_the_end_of_the_examples_own_task(scenario, policy, request):
    stream = request.getfixturevalue(scenario)
    _, state, ends = after_tasks(stream, 3, SHAPE._replace(memory_policy=policy))
    net = classifier.network(stream.problem, SHAPE)
    task_of = {c: t for t, task in enumerate(stream.tasks) for c in task.classes}
    seen_in = set()
    for i in range(20):
        y = int(state.memory.y[i])
        t = task_of[y]
        task = stream.batch(t)
        assert (task.x[task.y == y].flatten(1) == state.memory.x[i]).all(-1).any()
        torch.testing.assert_close(
            state.logits[i], net.apply(ends[t], state.memory.x[i : i + 1])[0]
        )
        seen_in.add(t)
    assert seen_in == {0, 1, 2}


# ---- the loss ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["blobs", "blobs_by_task"])
def test_steps_are_those_of_plain_torch(scenario, request):
    stream = request.getfixturevalue(scenario)
    method, state, _ = after_tasks(stream, 2)
    hyper, task = in_lane(HYPER, F64), stream.batch(2)
    state = method.begin_task(state, method.init(generator(9)), task, hyper)
    net = classifier.network(stream.problem, SHAPE)
    leaves = {k: p.clone().requires_grad_() for k, p in state.params.items()}
    adam = torch.optim.Adam(leaves.values(), lr=0.02, betas=(0.8, 0.999))

    def cross_entropy(x, y):
        kept = [
            F.cross_entropy(row[task.rivals[c]], task.rivals[c].cumsum(0)[c] - 1)
            for row, c in zip(net.apply(leaves, x), y, strict=True)
        ]
        return torch.stack(kept).mean()

    for s in range(7):
        batch, noise = minibatch(task, s), drawn(method, "train", task, 10 + s)
        one, other = ([int(20 * u) for u in noise[name]] for name in ("logits", "labels"))
        assert one != other
        now = net.apply(leaves, state.memory.x[one])
        far = F.mse_loss(now, torch.stack([state.logits[i] for i in one]))
        new = cross_entropy(batch.x, batch.y)
        old = cross_entropy(state.memory.x[other], state.memory.y[other])
        adam.zero_grad()
        (new + 0.3 * far + 0.7 * old).backward()
        adam.step()
        state, terms = method.steps["train"](state, batch, hyper, noise)
        expected = {"cross_entropy": new, "logit_rehearsal": far, "rehearsal": old}
        torch.testing.assert_close(terms, {k: v.detach() for k, v in expected.items()})
    found = {k: p.detach() for k, p in leaves.items()}
    torch.testing.assert_close(state.params, found, rtol=1e-9, atol=1e-9)


def test_logits_stay_where_they_are_at_the_start_of_a_task(blobs):
    """No drift after the end of a task, and no slope of it."""
    method, state, _ = after_tasks(blobs, 1)
    net, task = classifier.network(blobs.problem, SHAPE), blobs.batch(1)
    noise = drawn(method, "train", task)
    only = in_lane(HYPER._replace(logit_rehearsal=1e3, rehearsal=0.0), F64)
    off = in_lane(HYPER._replace(logit_rehearsal=0.0, rehearsal=0.0), F64)
    batch = minibatch(task, 0)
    slopes = [
        grad(lambda p, h=h: derpp.loss(p, state, batch, h, noise, net)[0])(state.params)
        for h in (only, off)
    ]
    torch.testing.assert_close(flatten(slopes[0]), flatten(slopes[1]))
    _, terms = method.steps["train"](state, batch, only, noise)
    assert terms["logit_rehearsal"] < 1e-24


def test_in_the_first_task_it_is_experience_replay(blobs):
    own = {"steps": 15, "lr": 0.02}
    one_task = first_tasks(blobs, 1)
    dark = derpp.build(blobs.problem, SHAPE)
    (walk,) = learn(dark, one_task, [(derpp.Hyper(**own), 0)])
    (plain,) = learn(er.build(blobs.problem, tiny(er)), one_task, [(er.Hyper(**own), 0)])
    torch.testing.assert_close(walk.state.params, plain.state.params)
    assert walk.losses[0]["rehearsal"] == walk.losses[0]["logit_rehearsal"] == 0


def test_an_unknown_policy_is_refused(blobs):
    with pytest.raises(ValueError, match="unknown memory_policy 'ring'"):
        derpp.build(blobs.problem, SHAPE._replace(memory_policy="ring"))


def test_its_memory_counts(blobs):
    method = derpp.build(blobs.problem, SHAPE)
    weights = 8 * ((8 + 1) * 8 + (8 + 1) * 6)
    # As for ER, and of each place six logits.
    expected = weights + 20 * 8 * (8 + 1 + 1 + 6) + 8
    assert size_in_bytes(method.carried(method.init(generator(0)))) == expected


def test_each_of_the_terms_keeps_what_fine_tuning_forgets(blobs):
    shape = derpp.Shape(hidden=32, batch_size=16, replay_batch_size=16, memory_size=30)
    hypers = [
        derpp.Hyper(steps=80, lr=1e-2, logit_rehearsal=a, rehearsal=b)
        for a, b in [(0.5, 0.5), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)]
    ]
    walks = learn(derpp.build(blobs.problem, shape), blobs, [(hyper, 0) for hyper in hypers])
    worst = [float(walk.accuracy[2, :2].min()) for walk in walks]
    assert min(worst[0], worst[2]) > 0.85
    assert worst[1] > 0.4 > 0.2 > worst[3]
