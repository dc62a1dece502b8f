"""Random numbers of a trial: functions of (trial seed, purpose, task) and of nothing else.

A lane's numbers never depend on its neighbours, on the width of its pack, on when it was paused or
on the machine: everything is drawn on the CPU, outside the lanes, in blocks of fixed length.
"""

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor

from trainables.engine.method import Batch

BLOCK = 32  # steps drawn at once; part of a trial's numbers, like its seed


def seed_of(*parts) -> int:
    """A 63-bit seed from anything JSON can hold, the same on every machine."""
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def trial_seed(study_seed: int, config: Mapping) -> int:
    """The seed of a trial: equal configurations have equal numbers, whatever their trial's id."""
    return seed_of("trial", study_seed, dict(config))


def generator(seed: int, purpose: str, task: int = 0) -> torch.Generator:
    """A CPU generator of one purpose ("init", "reset", "batch:gan", "gan", ...) in one task."""
    return torch.Generator().manual_seed(seed_of(seed, purpose, task))


def normal(generator: torch.Generator, *size: int, dtype: torch.dtype) -> Tensor:
    """A sample of N(0, I)."""
    return torch.randn(*size, generator=generator, dtype=dtype)


def uniform(generator: torch.Generator, *size: int, dtype: torch.dtype) -> Tensor:
    """Numbers in [0, 1)."""
    return torch.rand(*size, generator=generator, dtype=dtype)


def rehearsed(task: Batch, seen: bool = False) -> Tensor:
    """``(C,)`` bool, the classes to rehearse: those learned before this task, or all seen.

    Before the first task nothing was learned; its own classes are there then, to be weighed 0.
    """
    return task.seen if seen or not task.learned.any() else task.learned


def labels(generator: torch.Generator, classes: Tensor, steps: int, size: int) -> Tensor:
    """Labels of generated batches, as balanced over the classes as ``size`` allows.

    Args:
        classes: ``(C,)`` bool, the classes to draw from, at least one.
        steps, size: S batches of B labels.

    Returns:
        ``(S, B)`` int64. Every class stands ⌊B/n⌋ or ⌈B/n⌉ times in a batch; which ones stand once
        more is random, so each label has the same chance at n > B too.
    """
    known = classes.nonzero()[:, 0]
    order = torch.rand(steps, len(known), generator=generator).argsort(-1)  # (S, n)
    return known[order[:, torch.arange(size) % len(known)]]


def pairs(
    generator: torch.Generator, classes: Tensor, steps: int, size: int
) -> tuple[Tensor, Tensor]:
    """Two different labels for each of B examples, at random; the same one where there is but one.

    Args:
        classes: ``(C,)`` bool, the classes to draw from, at least one.
        steps, size: S batches of B pairs.

    Returns:
        Two ``(S, B)`` int64.
    """
    known = classes.nonzero()[:, 0]
    n = len(known)
    one = torch.randint(n, (steps, size), generator=generator)
    apart = torch.randint(1, max(2, n), (steps, size), generator=generator)
    return known[one], known[(one + apart) % n]
