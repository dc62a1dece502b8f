"""Stored examples of earlier tasks.

Each example has a key, a number given once; those with the smallest are kept, of all or of each
class. So what is kept after some tasks does not depend on how it was kept in between, and a smaller
memory holds a part of what a larger one holds.

Shape letters: M places, N examples of a task, R examples drawn, D input.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from trainables.engine import noise
from trainables.engine.method import Batch, Problem

# M of all methods that store examples: a budget, never a hyperparameter. 50 of each of ten classes;
# less than half of what there is to train on in ``split_digits``.
PLACES = 500
POLICIES = ("reservoir", "balanced")


class Memory(NamedTuple):
    x: Tensor  # (M, D)
    y: Tensor  # (M,) int64
    key: Tensor  # (M,)
    taken: Tensor  # () float, how many places are; they come first


def empty(problem: Problem, places: int) -> Memory:
    zero = torch.zeros(places, dtype=problem.dtype)
    x = zero[:, None].repeat(1, torch.Size(problem.input_shape).numel())
    return Memory(x, zero.long(), zero, zero.sum())


def with_task(memory: Memory, task: Batch, key: Tensor, policy: str) -> tuple[Memory, Tensor]:
    """The memory after a task.

    Args:
        task: its N training examples.
        key: ``(N,)``, of them.
        policy: "reservoir", the smallest keys of all (where they are uniform, a uniform sample of
            all examples so far, which is what reservoir sampling draws); or "balanced", as many of
            each class as of any other as far as there are, the smallest keys of each.

    Returns:
        The memory; and ``(M,)``, which rows of its places followed by the task's examples it now
        holds, for what a method stores beside them.

    Source: Vitter 1985, https://doi.org/10.1145/3147.3165; the greedy sampler of Prabhu et al.,
    ECCV 2020, https://doi.org/10.1007/978-3-030-58536-5_31.
    """
    places = len(memory.key)
    x, y = torch.cat([memory.x, task.x.flatten(1)]), torch.cat([memory.y, task.y])
    keys = torch.cat([memory.key, key.to(memory.key)])
    free = torch.arange(len(y), device=y.device)
    free = (free >= memory.taken) & (free < places)
    order = torch.where(free, torch.inf, keys).sort(stable=True).indices
    if policy == "balanced":
        rank = torch.where(free[order], torch.inf, earlier(y[order]))
        order = order[rank.sort(stable=True).indices]
    rows = order[:places]
    taken = (memory.taken + len(key)).clamp_max(places)
    return Memory(x[rows], y[rows], keys[rows], taken), rows


def earlier(y: Tensor) -> Tensor:
    """``(N,)`` int64: how many labels before each are the same."""
    labels, order = y.sort(stable=True)
    rank = torch.arange(len(y), device=y.device) - torch.searchsorted(labels, labels)
    return torch.empty_like(rank).scatter(0, order, rank)


def drawn(memory: Memory, chance: Tensor) -> Tensor:
    """Taken places at random, with replacement; inside a lane.

    Args:
        chance: ``(R,)``, uniform in [0, 1).

    Returns:
        ``(R,)`` int64, 0 while the memory is empty.
    """
    return (chance * memory.taken).long()


def drawing(problem: Problem, **sizes: int) -> Callable:
    """``Method.draw`` of a method that draws from its memory.

    It gives numbers uniform in [0, 1): "key", ``(S, N)``, at the end of a task; in its steps a
    chance, ``(S, R)``, by each name and of each size in ``sizes``.
    """

    def draw(generator, phase, steps, task, hyper):
        wanted = {"key": len(task.y)} if phase == "end_task" else sizes
        uniform = partial(noise.uniform, generator, steps, dtype=problem.dtype)
        return {name: uniform(size) for name, size in wanted.items()}

    return draw
