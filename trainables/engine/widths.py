"""How wide packs should be: a short measurement of the method on this machine."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import psutil
import torch

from trainables.engine import noise
from trainables.engine.method import Batch, Hyper
from trainables.engine.packs import Engine, Lane

GAIN = 0.9  # a wider pack has to take less than this share of the time


class Cost(NamedTuple):
    """What a lane costs in packs of one width."""

    width: int
    seconds: float  # of an engine, for one lane and one task
    bytes: int  # of memory, for one lane beside ``width - 1`` others
    free: int  # bytes of memory that nobody uses


def measure(engine: Engine, hyper: Hyper, task: Batch, t: int, width: int) -> Cost:
    """Train a pack of equal lanes for some steps of each phase, and count what that costs.

    Args:
        engine: of the method; it keeps the steps that are traced here.
        hyper: whose program weighs the phases, the default say.
        task, t: as for ``Engine.join``.
        width: lanes of the pack.
    """
    memory, seconds = peak_memory(engine.device), 0.0
    lanes = [engine.start(hyper, seed) for seed in range(width)]
    for phase, count in by_phase(engine.method.schedule(hyper, t)).items():
        block_of(phase, engine, lanes, task, t)  # traces the step
        taken = min(block_of(phase, engine, lanes, task, t) for _ in range(2))
        seconds += count * taken / noise.BLOCK / width
    memory = max(0, peak_memory(engine.device) - memory)
    return Cost(width, seconds, memory // width, free_memory(engine.device))


def by_phase(program: Sequence[tuple[str, int]]) -> Counter[str]:
    """Steps of each phase in a program."""
    steps = Counter()
    for phase, count in program:
        steps[phase] += count
    return steps


def block_of(phase: str, engine: Engine, lanes: Sequence[Lane], task: Batch, t: int) -> float:
    """Seconds that a block of steps of one phase takes."""
    for lane in lanes:
        engine.join(lane, task, t).program = [(phase, noise.BLOCK)]
    finish(engine.device)
    started = time.perf_counter()
    while engine.seats:
        engine.advance()
    finish(engine.device)
    return time.perf_counter() - started


def finish(device: torch.device) -> None:
    """Wait for what was launched on a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> int:
    """Bytes of the GPU that were in use at most, or that this process holds: it gives none back."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return psutil.Process().memory_info().rss


def free_memory(device: torch.device) -> int:
    """Bytes of the GPU, or of this machine, that nobody uses."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def best_width(costs: Sequence[Cost]) -> int:
    """The narrowest width that takes hardly more time than the best one does."""
    best = min(cost.seconds for cost in costs)
    return min(cost.width for cost in costs if GAIN * cost.seconds <= best)
