"""Lanes side by side against lanes one by one."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.func import grad
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from tests.conftest import EXACTLY, F64, generator
from trainables.engine.fuse import Flat, fuse, lane, stack, unroll


class Pair(NamedTuple):
    w: Tensor
    more: dict[str, Tensor]


def pair(seed):
    g = generator(seed)
    return Pair(
        torch.randn(4, 3, generator=g, dtype=F64), {"b": torch.randn(3, generator=g, dtype=F64)}
    )


def descend(params, x, rate):
    """A step with a gradient inside, as methods have; returns two trees."""

    def loss(p):
        return (x @ p.w + p.more["b"]).tanh().square().mean()

    grads = grad(loss)(params)
    return Pair(params.w - rate * grads.w, {"b": params.more["b"]}), {"loss": loss(params)}


def arguments(lanes, seed=0):
    trees = [pair(seed + k) for k in range(lanes)]
    x = torch.randn(lanes, 5, 4, generator=generator(seed + 50), dtype=F64)
    return trees, x, torch.rand(lanes, generator=generator(seed + 90), dtype=F64)


def test_lane_undoes_stack():
    trees, _, _ = arguments(3)
    for k in range(3):
        torch.testing.assert_close(lane(stack(trees), k), trees[k], **EXACTLY)


@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_fused_is_a_loop_over_lanes(lanes):
    trees, x, rate = arguments(lanes)
    together = fuse(descend)(stack(trees), x, rate)
    for k in range(lanes):
        alone = descend(trees[k], x[k], rate[k])
        torch.testing.assert_close(lane(together, k), alone, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("lanes", [1, 3])
def test_shared_arguments_have_no_lane_axis(lanes):
    trees, x, rate = arguments(lanes)
    together = fuse(descend, shared=(1,))(stack(trees), x[0], rate)
    for k in range(lanes):
        alone = descend(trees[k], x[0], rate[k])
        torch.testing.assert_close(lane(together, k), alone, rtol=1e-13, atol=1e-13)


def test_random_numbers_inside_a_lane_raise():
    noisy = fuse(lambda x: x + torch.rand_like(x))
    with pytest.raises(RuntimeError, match="random"):
        noisy(torch.zeros(2, 3))


@pytest.mark.parametrize("lanes", [1, 4])
def test_unrolled_is_the_function_on_new_values_too(lanes):
    fused = fuse(descend)
    trees, x, rate = arguments(lanes)
    leaves, structure = tree_flatten((stack(trees), x, rate))
    flat = Flat(fused, structure)
    program = unroll(flat, leaves)
    for seed in (0, 200, 400):
        trees, x, rate = arguments(lanes, seed)
        args = stack(trees), x, rate
        result = tree_unflatten(program(*tree_leaves(args)), flat.result)
        torch.testing.assert_close(result, fused(*args), **EXACTLY)
