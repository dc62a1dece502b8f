"""Trees of tensors, kept flat: what is joined is parted again, with and without leading axes."""

from typing import Any, NamedTuple

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map

from tests.conftest import EXACTLY, F64, generator
from trainables.engine.layout import Layout, by_component, by_dtype


class Nets(NamedTuple):
    first: dict[str, torch.Tensor]
    second: dict[str, torch.Tensor]
    step: torch.Tensor
    mask: torch.Tensor


def tree(lead: tuple[int, ...] = (), seed: int = 0) -> Nets:
    g = generator(seed)

    def normal(*shape):
        return torch.randn((*lead, *shape), generator=g, dtype=F64)

    return Nets(
        {"w": normal(4, 3), "b": normal(3)},
        {"w": normal(3, 2), "b": normal(2), "count": (10 * normal(2)).long()},
        normal(),
        normal(5) > 0,
    )


SIZES: dict[Any, list[tuple[int, ...]]] = {
    # first; second, of two types; the step; the mask, which is alone and keeps its shape
    by_component: [(15,), (8,), (2,), (), (5,)],
    by_dtype: [(24,), (2,), (5,)],
}


@pytest.mark.parametrize("together", [by_component, by_dtype])
@pytest.mark.parametrize("lead", [(), (7,)])
def test_what_is_joined_is_parted_again(together, lead):
    layout = Layout(tree(lead), together, len(lead))
    new = tree(lead, seed=1)
    flat = layout.join(new, len(lead))
    assert [tuple(tensor.shape) for tensor in flat] == [(*lead, *s) for s in SIZES[together]]
    for i in range(*lead or [1]):
        row = tree_map(lambda leaf, i=i: leaf[i] if lead else leaf, new)
        parted = layout.part([tensor[i] if lead else tensor for tensor in flat])
        torch.testing.assert_close(parted, row, **EXACTLY)
        assert type(parted) is Nets and [x.dtype for x in tree_leaves(parted)] == [
            x.dtype for x in tree_leaves(row)
        ]


def test_one_tensor_keeps_its_shape():
    layout = Layout({"w": torch.zeros(2, 3)}, by_component)
    assert [tensor.shape for tensor in layout.join({"w": torch.ones(2, 3)})] == [(2, 3)]


def test_nothing_is_kept_as_nothing():
    layout = Layout({}, by_dtype)
    assert layout.join({}) == [] and layout.part([]) == {}


def test_gradients_go_through():
    layout = Layout(tree().first, by_component)
    (flat,) = layout.join(tree().first)
    slope = torch.func.grad(lambda v: (layout.part([v])["b"] * torch.arange(3.0)).sum())(flat)
    torch.testing.assert_close(slope, torch.tensor([0.0] * 12 + [0, 1, 2], dtype=F64), **EXACTLY)
