"""Many small tensors kept as few flat ones, so that lanes are stacked and parted in few pieces."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import (
    MappingKey,
    tree_flatten_with_path,
    tree_leaves,
    tree_unflatten,
)


def by_component(path: Sequence[Any], leaf: Tensor):
    """Keeps the parameters of a network together, and every other tensor by itself."""
    *parents, last = path
    return (*parents, leaf.dtype) if isinstance(last, MappingKey) else tuple(path)


def by_dtype(path: Sequence[Any], leaf: Tensor):
    """Keeps together what can be."""
    return leaf.dtype


class Layout:
    """Which leaves of a tree of tensors are kept in which flat tensor.

    Args:
        tree: an example.
        together: (path, leaf) -> anything; leaves for which it is equal are kept in one tensor.
        lead: leading axes of the example that do not belong to it (steps, say).
    """

    def __init__(self, tree, together: Callable[[Sequence[Any], Tensor], Any], lead: int = 0):
        named, self.tree = tree_flatten_with_path(tree)
        self.shapes = [leaf.shape[lead:] for _, leaf in named]
        units = defaultdict(list)
        for i, (path, leaf) in enumerate(named):
            units[together(path, leaf)].append(i)
        self.units = list(units.values())

    def join(self, tree, lead: int = 0) -> list[Tensor]:
        """The tree's tensors; those that are alone in theirs keep their shape."""
        leaves = tree_leaves(tree)
        return [
            torch.cat([leaves[i].reshape(*leaves[i].shape[:lead], -1) for i in unit], lead)
            if len(unit) > 1
            else leaves[unit[0]]
            for unit in self.units
        ]

    def part(self, tensors: Sequence[Tensor]):
        """The tree of which ``join`` made these."""
        leaves: list[Any] = [None] * len(self.shapes)
        for unit, tensor in zip(self.units, tensors, strict=True):
            pieces = [tensor]
            if len(unit) > 1:
                pieces = tensor.split([self.shapes[i].numel() for i in unit])
            for i, piece in zip(unit, pieces, strict=True):
                leaves[i] = piece.reshape(self.shapes[i])
        return tree_unflatten(leaves, self.tree)
