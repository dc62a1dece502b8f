"""Dropout: steps against ``torch.nn`` with the same units missing, and predictions with none."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.conftest import EXACTLY, F64, generator, tiny
from trainables import dropout, sequential
from trainables.engine import classifier
from trainables.engine.learn import learn
from trainables.engine.method import Problem
from trainables.engine.packs import in_lane

SHAPE = tiny(dropout)
HYPER = dropout.Hyper(lr=0.02, beta1=0.8, p_in=0.25, p_hidden=0.4, label_smoothing=0.1)


def drawn(method, task, hyper=HYPER, seed=0, steps=1):
    return method.draw(generator(seed), "train", steps, task, hyper)


def first(noise):
    return {name: leaf[0] for name, leaf in noise.items()}


@pytest.mark.parametrize("layers", [1, 2])
def test_steps_are_those_of_torch_without_the_missing_units(layers, blobs):
    method = dropout.build(blobs.problem, SHAPE._replace(layers=layers))
    state, task = method.init(generator(0)), blobs.batch(0)
    linear = []
    for i in range(layers + 1):
        linear.append(nn.Linear(*state.params[f"w{i}"].shape, dtype=F64))
        own = {"weight": state.params[f"w{i}"].T, "bias": state.params[f"b{i}"]}
        linear[-1].load_state_dict(own)
    leaves = [leaf for layer in linear for leaf in layer.parameters()]
    optimizer = torch.optim.Adam(leaves, lr=0.02, betas=(0.8, 0.999))
    columns = task.current.nonzero()[:, 0]
    for s in range(5):
        rows = torch.randint(len(task.y), (8,), generator=generator(s))
        batch, noise = (
            task._replace(x=task.x[rows], y=task.y[rows]),
            first(drawn(method, task, seed=s)),
        )
        state, terms = method.steps["train"](state, batch, in_lane(HYPER, F64), noise)
        h = torch.where(noise["input"], batch.x / 0.75, 0.0)
        for i, layer in enumerate(linear[:-1]):
            there = noise["hidden"][:, 8 * i : 8 * (i + 1)]
            h = torch.where(there, layer(h).relu() / 0.6, 0.0)
        target = torch.where(batch.y[:, None] == columns, 0.9, 0.1).double()
        loss = F.cross_entropy(linear[-1](h)[:, columns], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        torch.testing.assert_close(terms, {"cross_entropy": loss.detach()})
    h = task.x
    for layer in linear[:-1]:
        h = layer(h).relu()
    torch.testing.assert_close(method.predict(state, task.x), linear[-1](h).detach())


def test_units_are_missing_as_often_as_they_should(blobs):
    method, task = dropout.build(blobs.problem, SHAPE), blobs.batch(0)
    noise = drawn(method, task, steps=500)
    assert noise["input"].shape == noise["hidden"].shape == (500, 8, 8)
    # 32,000 draws: the standard error is at most 0.003.
    assert abs(noise["input"].float().mean() - 0.75) < 0.012
    assert abs(noise["hidden"].float().mean() - 0.6) < 0.012
    assert (noise["input"] != noise["hidden"]).float().mean() > 0.3  # drawn apart
    assert (noise["input"][0] != noise["input"][1]).any()
    assert method.draw(generator(0), "end_task", 1, task, HYPER) == {}


@pytest.mark.parametrize("told", [(), ("classifier",)])
def test_the_mean_over_masks_is_what_a_linear_network_predicts(told):
    """E[m ⊙ x] = x: seen where no rectifier is in the way, weights and inputs being positive."""
    attributes = torch.rand(3, 4, generator=generator(2), dtype=F64)
    problem = Problem((5,), 3, F64, attributes, told)
    method = dropout.build(problem, SHAPE)
    net = dropout.nets.classifier("perceptron", problem, (5,), SHAPE.hidden, SHAPE.layers)
    params = {name: leaf.abs() for name, leaf in net.init(generator(0)).items()}
    x = torch.rand(1, 5, generator=generator(1), dtype=F64)
    noise = drawn(method, None, steps=25_000)
    there = {name: leaf.flatten(0, 1) for name, leaf in noise.items()}
    masks = [there["hidden"] / 0.6]
    thinned = x * there["input"] / 0.75
    mean = net.head(params, net.features(params, thinned, masks)).mean(0)
    torch.testing.assert_close(mean, net.apply(params, x)[0], rtol=0.01, atol=0.0)


def test_without_missing_units_it_is_sequential(blobs):
    own = {"steps": 30, "lr": 0.01, "label_smoothing": 0.1}
    whole = dropout.Hyper(p_in=0.0, p_hidden=0.0, **own)
    (none,) = learn(dropout.build(blobs.problem, SHAPE), blobs, [(whole, 0)])
    plain = sequential.build(blobs.problem, tiny(sequential))
    (free,) = learn(plain, blobs, [(sequential.Hyper(**own), 0)])
    torch.testing.assert_close(none.state.params, free.state.params)


def test_predictions_are_those_of_the_whole_network(blobs):
    method = dropout.build(blobs.problem, SHAPE)
    net, x = classifier.network(blobs.problem, tiny(sequential)), blobs.batch(0).x
    state = method.init(generator(0))
    found = method.predict(state, x)
    torch.testing.assert_close(found, net.apply(state.params, x), **EXACTLY)
