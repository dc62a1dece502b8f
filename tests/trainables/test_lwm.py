"""LwM: steps against plain torch with Grad-CAM by autograd, and where its slope goes."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad

from tests.conftest import EXACTLY, F64, clone, generator, tiny
from trainables import lwf, lwm
from trainables.engine import classifier
from trainables.engine.learn import learn
from trainables.engine.method import Batch, Problem
from trainables.engine.packs import in_lane

SHAPE = tiny(lwm)
HYPER = lwm.Hyper(lr=0.02, beta1=0.8, lwf=3.0, temperature=2.0, per_task=False, attention=5.0)
IMAGES = Problem((2, 7, 6), 4, F64)
NETWORKS = ["convolutional", "perceptron"]


def images(t, seed=0, n=8):
    """Two classes a task, all seen compete."""
    g = generator(1000 * t + seed)
    x = torch.randn(n, *IMAGES.input_shape, generator=g, dtype=F64)
    y = torch.randint(2, (n,), generator=g) + 2 * t
    current, learned = torch.arange(4) // 2 == t, torch.arange(4) < 2 * t
    return Batch(x, y, current, learned, (current | learned).repeat(4, 1))


def second_task(network):
    """The method, its network, and its state at the start of the second task."""
    shape, lane = SHAPE._replace(network=network), in_lane(HYPER, F64)
    method, net = lwm.build(IMAGES, shape), classifier.network(IMAGES, shape)
    state = method.init(generator(0))
    state = method.begin_task(state, method.init(generator(9)), images(0), lane)
    for s in range(8):
        state, terms = method.steps["train"](state, images(0, s), lane, {})
        assert terms["lwf"] == terms["attention"] == 0
    state = method.end_task(state, images(0), lane, {})
    return method, net, method.begin_task(state, method.init(generator(9)), images(1), lane)


def forward(params, x, network):
    """Hidden layer and logits, in plain torch."""
    if network == "perceptron":
        h = (x.flatten(1) @ params["w0"] + params["b0"]).relu()
        return h, h @ params["w1"] + params["b1"]
    h = F.conv2d(x, params["k0"], params["c0"], stride=2, padding=1).relu()
    return h, h.flatten(1) @ params["w0"] + params["b0"]


def map_of(h, logits, label, create_graph):
    """Q, an example at a time."""
    rows = []
    for i, b in enumerate(label.tolist()):
        (slope,) = torch.autograd.grad(
            logits[i, b], h, retain_graph=True, create_graph=create_graph
        )
        if h.dim() == 2:
            m = (slope[i] * h[i]).relu()
        else:
            maps = [s.mean() * a for s, a in zip(slope[i], h[i], strict=True)]
            m = torch.stack(maps).sum(0).relu().flatten()
        rows.append(m / m.norm().clamp_min(1e-6))
    return torch.stack(rows)


@pytest.mark.parametrize("network", NETWORKS)
def test_steps_are_those_of_plain_torch(network):
    method, _, state = second_task(network)
    lane = in_lane(HYPER, F64)
    teacher = {name: leaf.clone().requires_grad_() for name, leaf in state.params.items()}
    params = {name: leaf.clone().requires_grad_() for name, leaf in state.params.items()}
    optimizer = torch.optim.Adam(params.values(), lr=0.02, betas=(0.8, 0.999))
    for s in range(5):
        batch = images(1, s)
        state, terms = method.steps["train"](state, batch, lane, {})
        (h, logits), (old, old_logits) = (forward(p, batch.x, network) for p in (params, teacher))
        p, q = ((z[:, :2] / 2).softmax(-1) for z in (logits, old_logits.detach()))
        kept = 4 * (q * (q.log() - p.log())).sum(-1).mean()
        label = old_logits[:, :2].argmax(-1)
        before = map_of(old, old_logits, label, create_graph=False).detach()
        apart = map_of(h, logits, label, create_graph=True) - before
        apart = ((apart.square() + 1e-12).sqrt() - 1e-6).sum(-1).mean()
        new = F.cross_entropy(logits, batch.y)
        optimizer.zero_grad()
        (new + 3 * kept + 5 * apart).backward()
        optimizer.step()
        expected = {"cross_entropy": new, "lwf": kept, "attention": apart}
        expected = {name: value.detach() for name, value in expected.items()}
        torch.testing.assert_close(terms, expected, rtol=1e-6, atol=1e-9)
    assert terms["attention"] > 0.01
    found = {name: leaf.detach() for name, leaf in params.items()}
    torch.testing.assert_close(state.params, found, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_slope_of_attention_reaches_the_student_through_its_own_slopes(network):
    _, net, state = second_task(network)
    batch, lane = images(1), in_lane(HYPER, F64)
    moved = {name: leaf + 0.1 for name, leaf in state.params.items()}
    before = clone(state.frozen)
    slopes = grad(lambda p: lwm.loss(p, state, batch, lane, {}, net)[1]["attention"])(moved)
    assert all(slopes[name].any() for name in slopes if name[0] in "kw")  # not b: no logit is in Q
    torch.testing.assert_close(state.frozen, before, **EXACTLY)
    # The last layer's weights enter Q through ∂l/∂A alone: with that detached they would have none.
    last = "w0" if network == "convolutional" else "w1"
    hidden, label = net.features(moved, batch.x), batch.y - 2
    of_last = lambda w: lwm.attention(moved | {last: w}, hidden, label, net).sum()  # noqa: E731
    slope = grad(of_last)(moved[last])
    step = torch.randn(slope.shape, generator=generator(1), dtype=F64)
    here, there = (of_last(moved[last] + 1e-6 * sign * step) for sign in (-1, 1))
    torch.testing.assert_close((slope * step).sum(), (there - here) / 2e-6, rtol=1e-5, atol=1e-7)
    assert slope.any()


@pytest.mark.parametrize("network", NETWORKS)
def test_attention_is_of_the_learned_class_that_the_teacher_holds_for_the_likeliest(network):
    """The classes of the new task have no say in it, however high their logits."""
    _, net, state = second_task(network)
    batch, lane = images(1), in_lane(HYPER, F64)
    bias = "b0" if network == "convolutional" else "b1"
    tilted = {
        name: leaf + 1e3 * batch.current if name == bias else leaf
        for name, leaf in state.frozen.items()
    }
    moved = {name: leaf + 0.1 for name, leaf in state.params.items()}
    found, expected = (
        lwm.loss(moved, state._replace(frozen=frozen), batch, lane, {}, net)[1]["attention"]
        for frozen in (tilted, state.frozen)
    )
    torch.testing.assert_close(found, expected)


def test_convolutions_of_flat_vectors_are_refused(blobs):
    with pytest.raises(ValueError, match="needs at least one hidden layer and examples of"):
        lwm.build(blobs.problem, SHAPE._replace(network="convolutional"))


def test_without_attention_it_is_lwf(blobs):
    own = {"steps": 30, "lr": 0.01, "lwf": 2.0, "per_task": True}
    (blind,) = learn(lwm.build(blobs.problem, SHAPE), blobs, [(lwm.Hyper(attention=0.0, **own), 0)])
    (plain,) = learn(lwf.build(blobs.problem, tiny(lwf)), blobs, [(lwf.Hyper(**own), 0)])
    torch.testing.assert_close(blind.state.params, plain.state.params)
