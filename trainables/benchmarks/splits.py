"""Seeded choices: the order of the classes or of the tasks, and the examples that are held out.

Every choice is a function of (seed, purpose) through a generator of its own, so it is the same on
every machine and the process's global random state is neither read nor moved.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from trainables.engine import noise


def class_groups(sizes: Sequence[int], seed: int) -> tuple[tuple[int, ...], ...]:
    """Cut a random order of the classes 0..Σ sizes − 1 into tasks of these sizes.

    Every seed, 0 too, is a permutation; the natural order is not special. The order depends on the
    number of classes and the seed only: 10 × 1 meets the classes in the order of 5 × 2.
    """
    order = torch.randperm(sum(sizes), generator=noise.generator(seed, "class order")).tolist()
    return runs(order, sizes)


def task_groups(sizes: Sequence[int], seed: int) -> tuple[tuple[int, ...], ...]:
    """Cut the natural order of the classes into tasks of these sizes; the tasks are shuffled."""
    groups = runs(range(sum(sizes)), sizes)
    order = torch.randperm(len(sizes), generator=noise.generator(seed, "task order")).tolist()
    return tuple(groups[i] for i in order)


def runs(order: Sequence[int], sizes: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """A sequence cut into pieces of these sizes."""
    ends = list(accumulate(sizes))
    return tuple(tuple(order[e - n : e]) for e, n in zip(ends, sizes, strict=True))


def hold_out(y: Tensor, share: float, seed: int, purpose: str) -> Tensor:
    """Choose ``share`` of each class at random.

    Args:
        y: ``(N,)`` int64, at least two examples of every class that occurs.
        share: in (0, 0.5].

    Returns:
        ``(N,)`` bool, True where held out: round(share · n) of the n examples of a class, at least
        one. A class's choice does not depend on the other classes.
    """
    held = torch.zeros(len(y), dtype=torch.bool)
    for c in y.unique().tolist():
        rows = (y == c).nonzero()[:, 0]
        order = torch.randperm(len(rows), generator=noise.generator(seed, f"{purpose} {c}"))
        held[rows[order[: max(1, round(share * len(rows)))]]] = True
    return held
