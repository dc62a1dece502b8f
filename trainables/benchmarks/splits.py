"""Seeded choices: the order of the classes, and the examples that are held out.

Every choice is a function of (seed, purpose) through a generator of its own, so it is the same on
every machine and the process's global random state is neither read nor moved.
"""

import torch
from torch import Tensor

from trainables.engine import noise


def class_groups(tasks: int, size: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Cut a random order of the classes 0..tasks·size−1 into tasks.

    Every seed, 0 too, is a permutation; the natural order is not special. The order depends on the
    number of classes and the seed only: 10 × 1 meets the classes in the order of 5 × 2.
    """
    order = torch.randperm(tasks * size, generator=noise.generator(seed, "class order")).tolist()
    return tuple(tuple(order[i : i + size]) for i in range(0, len(order), size))


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
