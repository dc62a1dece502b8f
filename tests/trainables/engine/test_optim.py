"""Updates against ``torch.optim``, over many steps."""

from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch

from tests.conftest import EXACTLY, F64, clone, generator
from trainables.engine.optim import Moments, adam, adam_on, flatten, moments, sgd, unflatten

SHAPES = {"w": (3, 2), "scale": (), "b": (4,)}


def tree(seed, scale=1.0):
    g = generator(seed)
    return {k: scale * torch.randn(s, generator=g, dtype=F64) for k, s in SHAPES.items()}


def gradients(steps):
    """Gradients of very different sizes."""
    return [tree(100 + s, scale=10.0 ** (2 - s % 5)) for s in range(steps)]


def with_torch(optimizer, steps, **options):
    params = {k: p.clone().requires_grad_() for k, p in tree(0).items()}
    update = optimizer(params.values(), **options)
    for grads in gradients(steps):
        for k, p in params.items():
            p.grad = grads[k].clone()
        update.step()
    return {k: p.detach() for k, p in params.items()}


@pytest.mark.parametrize(("beta1", "beta2"), [(0.9, 0.999), (0.0, 0.9), (0.5, 0.9)])
def test_adam_is_that_of_torch(beta1, beta2):
    params, past = tree(0), moments(tree(0))
    for grads in gradients(60):
        params, past = adam(params, grads, past, torch.tensor(0.03, dtype=F64), beta1, beta2)
    expected = with_torch(torch.optim.Adam, 60, lr=0.03, betas=(beta1, beta2))
    torch.testing.assert_close(params, expected, rtol=1e-10, atol=1e-12)
    assert past.step == 60


def test_adam_adds_epsilon_outside_the_root():
    params, grads = {"w": torch.zeros(3, dtype=F64)}, {"w": torch.full((3,), 1e-8, dtype=F64)}
    moved, _ = adam(params, grads, moments(params), lr=1.0, eps=1e-8)
    torch.testing.assert_close(moved["w"], torch.full((3,), -0.5, dtype=F64))  # −g / (|g| + ε)


def test_first_step_of_adam_has_the_length_of_the_learning_rate():
    params, grads = tree(0), tree(1)
    moved, _ = adam(params, grads, moments(params), lr=0.25, beta1=0.7, beta2=0.8, eps=0.0)
    expected = {k: params[k] - 0.25 * grads[k].sign() for k in params}
    torch.testing.assert_close(moved, expected)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_that_of_torch(momentum):
    params, past = tree(0), moments(tree(0))
    for grads in gradients(30):
        params, past = sgd(params, grads, past, torch.tensor(0.03, dtype=F64), momentum)
    expected = with_torch(torch.optim.SGD, 30, lr=0.03, momentum=momentum)
    torch.testing.assert_close(params, expected, rtol=1e-10, atol=1e-12)
    assert past.step == 30


def test_unflatten_undoes_flatten():
    params = tree(0)
    flat = flatten(params)
    assert flat.shape == (3 * 2 + 1 + 4,)
    torch.testing.assert_close(unflatten(flat, params), params, **EXACTLY)


@pytest.mark.parametrize("update", [adam, sgd])
def test_an_update_leaves_its_inputs_alone(update):
    params, grads = tree(0), tree(1)
    _, past = update(params, grads, moments(params), 0.1)
    before = clone((params, grads, past))
    update(params, grads, past, 0.1)
    torch.testing.assert_close((params, grads, past), before, **EXACTLY)


class Players(NamedTuple):
    one: dict[str, torch.Tensor]
    two: dict[str, dict[str, torch.Tensor]]  # of two networks
    one_moments: Moments
    two_moments: Moments


def test_adam_on_one_player_leaves_the_other_alone():
    one, two = tree(0), {"a": tree(1), "b": tree(2)}
    state = Players(one, two, moments(one), moments(two))
    hyper = SimpleNamespace(one_lr=0.1, two_lr=0.2, two_beta1=0.3, two_beta2=0.4)
    grads = {"a": tree(3), "b": tree(4)}
    moved = adam_on(state, "two", grads, hyper)
    expected = adam(two, grads, moments(two), 0.2, 0.3, 0.4)
    torch.testing.assert_close((moved.two, moved.two_moments), expected, **EXACTLY)
    assert moved.one is one and moved.one_moments is state.one_moments
