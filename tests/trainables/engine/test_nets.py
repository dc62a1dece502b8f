"""The perceptron against ``torch.nn``."""

import itertools

import pytest
import torch
from torch import nn

from tests.conftest import EXACTLY, F64, generator
from trainables.engine.nets import choose, mlp, one_hot


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.2])
@pytest.mark.parametrize("sizes", [(5, 3), (5, 7, 3), (5, 7, 6, 3)])
def test_mlp_is_a_stack_of_linear_layers(sizes, slope):
    net = mlp(sizes, slope=slope, dtype=F64)
    g = generator(1)
    params = {k: torch.randn(p.shape, generator=g, dtype=F64) for k, p in net.init(g).items()}
    layers = []
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        linear = nn.Linear(a, b, dtype=F64)
        linear.load_state_dict({"weight": params[f"w{i}"].T, "bias": params[f"b{i}"]})
        layers += [linear, nn.LeakyReLU(slope)]
    x = torch.randn(11, 5, generator=g, dtype=F64)
    torch.testing.assert_close(net.apply(params, x), nn.Sequential(*layers[:-1])(x).detach())


def test_init_has_the_variance_of_he():
    params = mlp([400, 300, 2], dtype=F64).init(generator(0))
    weight = params["w0"]
    # 120,000 draws: the standard error of the mean square is 2/400 · √(2/120,000) = 2e-5.
    assert abs(weight.square().mean() - 2 / 400) < 1e-4
    assert abs(params["w1"].square().mean() - 2 / 300) < 2e-3
    assert abs(weight.mean()) < 1e-3
    assert not params["b0"].any()
    assert not params["b1"].any()


def test_init_is_a_function_of_its_generator():
    net = mlp([5, 7, 3])
    first, again, other = (net.init(generator(seed)) for seed in (0, 0, 1))
    torch.testing.assert_close(first, again, **EXACTLY)
    assert (first["w0"] != other["w0"]).all()
    assert first["w0"].dtype == torch.float32


def test_mlp_flattens_images():
    net = mlp([12, 4, 3], dtype=F64)
    params, x = net.init(generator(0)), torch.randn(2, 3, 2, 2, generator=generator(1), dtype=F64)
    torch.testing.assert_close(net.apply(params, x), net.apply(params, x.reshape(2, 12)), **EXACTLY)


@pytest.mark.parametrize("condition", [True, False])
def test_choose_takes_one_tree_or_the_other(condition):
    yes, no = ({"w": torch.full((2, 3), v), "b": torch.tensor(v)} for v in (1.0, 2.0))
    chosen = choose(torch.tensor(condition), yes, no)
    torch.testing.assert_close(chosen, yes if condition else no, **EXACTLY)


def test_one_hot_is_that_of_torch():
    y = torch.tensor([3, 0, 3])
    codes = one_hot(y, 5, torch.zeros(1, dtype=F64))
    torch.testing.assert_close(codes, nn.functional.one_hot(y, 5).to(F64), **EXACTLY)
