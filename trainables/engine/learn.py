"""Walk a task stream with one trial or many.

Lanes of a pack share method, shape, benchmark and task. Each has a program for the task, a list of
(phase, steps); lanes that are in the same phase step together, so programs may differ in length
and order. A lane's numbers depend on nothing but its own seed and hyperparameters.
"""

import functools
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import (
    tree_flatten,
    tree_leaves,
    tree_map,
    tree_structure,
    tree_unflatten,
)

from trainables.engine import noise
from trainables.engine.fuse import Flat, fuse, lane, stack, unroll
from trainables.engine.method import Batch, Hyper, Method, Problem, Scalar, State

UNROLL_AFTER = 10 * noise.BLOCK  # steps of one phase and width; tracing costs that of ~300
EVALUATED_AT_ONCE = 4096  # examples


class Stream(Protocol):
    """What is needed of a task stream; ``trainables.benchmarks`` makes them."""

    @property
    def problem(self) -> Problem: ...
    @property
    def tasks(self) -> Sequence[Any]: ...  # splits ``train``, ``validation``: x (N, *input), y (N,)
    def batch(self, t: int, data: Literal["task", "seen"] = "task") -> Batch: ...
    def rivals(self, t: int) -> Tensor: ...


class Lane(NamedTuple):
    """One trial as the engine sees it."""

    hyper: Hyper  # plain numbers
    seed: int
    state: State


class Learned(NamedTuple):
    """What became of a lane in one task."""

    state: State
    losses: dict[str, float]  # mean of each term over the steps that computed it
    diverged: str | None  # why the lane must end here, or None


class Walk(NamedTuple):
    """A trial's way through a whole stream."""

    accuracy: np.ndarray  # (T, T): A[i, j] on task j after task i; NaN above the diagonal
    losses: list[dict[str, float]]  # one a task
    state: State
    diverged: str | None


@dataclass
class _Progress:
    """A lane inside a task."""

    lane: Lane
    scalars: Hyper  # as 0-dim tensors
    state: State
    blocks: list[tuple[str, int]]  # (phase, steps <= BLOCK), last first
    generators: dict[str, torch.Generator] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    counts: Counter = field(default_factory=Counter)
    diverged: str | None = None

    def generator(self, purpose: str, t: int) -> torch.Generator:
        if purpose not in self.generators:
            self.generators[purpose] = noise.generator(self.lane.seed, purpose, t)
        return self.generators[purpose]


class Engine:
    """A method on a device, with its fused steps, each traced once for a phase and a width."""

    def __init__(self, method: Method, problem: Problem, device: torch.device | str = "cpu"):
        self.method, self.problem, self.device = method, problem, torch.device(device)
        self._programs = {}
        self._steps_run = Counter()

    def start(self, hyper: Hyper, seed: int) -> Lane:
        """A trial before its first task."""
        return Lane(hyper, seed, self._init(seed, "init", 0))

    @torch.no_grad()
    def learn_task(self, lanes: Sequence[Lane], task: Batch, t: int) -> list[Learned]:
        """Train every lane on task ``t``.

        Args:
            lanes: K trials, all of them before task ``t``.
            task: its training data, ``Stream.batch(t, method.data)``.
            t: index of the task, from 0.

        Returns:
            One ``Learned`` a lane, in order. A lane whose loss or state is no longer finite ends
            with the reason; its neighbours do not notice.
        """
        on_cpu, task = task, self._here(task)  # random numbers are drawn on the CPU
        scalars = [self._here(in_lane(one.hyper, self.problem.dtype)) for one in lanes]
        fresh = [self._init(one.seed, "reset", t) for one in lanes]
        begun = fuse(self.method.begin_task, shared=(2,))(
            stack([one.state for one in lanes]), stack(fresh), task, stack(scalars)
        )
        walking = [
            _Progress(one, scalars[k], lane(begun, k), in_blocks(self.method, one.hyper, t))
            for k, one in enumerate(lanes)
        ]
        while waiting := [p for p in walking if p.blocks and not p.diverged]:
            # The block that most lanes wait for, so that packs stay wide.
            (phase, steps), _ = Counter(p.blocks[-1] for p in waiting).most_common(1)[0]
            group = [p for p in waiting if p.blocks[-1] == (phase, steps)]
            self._run(phase, steps, group, task, on_cpu, t)

        if sound := [p for p in walking if not p.diverged]:
            drawn = [self._draw("end_task", 1, p, on_cpu, t) for p in sound]
            ended = fuse(self.method.end_task, shared=(1,))(
                stack([p.state for p in sound]),
                task,
                stack([p.scalars for p in sound]),
                stack([tree_map(lambda leaf: leaf[0], d) for d in drawn]),
            )
            for k, p in enumerate(sound):
                p.state = lane(ended, k)
                if not all(bool(leaf.isfinite().all()) for leaf in tree_leaves(p.state)):
                    p.diverged = f"weights are not finite after task {t}"
        return [
            Learned(p.state, {k: v / p.counts[k] for k, v in p.sums.items()}, p.diverged)
            for p in walking
        ]

    def _run(
        self, phase: str, steps: int, group: list[_Progress], task: Batch, on_cpu: Batch, t: int
    ) -> None:
        """Step the lanes of ``group``, in lock-step, through their next block."""
        size, examples, width = self.method.batch_size, len(task.y), len(group)
        drawn, chosen = [], []
        for p in group:
            p.blocks.pop()
            drawn.append(self._draw(phase, noise.BLOCK, p, on_cpu, t))
            picks = p.generator(f"batch:{phase}", t)
            chosen.append(torch.randint(examples, (noise.BLOCK, size), generator=picks))
        # A pack of one has no lane axis: its tensors go through the step as they are.
        alone = width == 1
        join, axis = (lambda trees: trees[0], 0) if alone else (stack, 1)
        masks = [m if alone else m.expand(width, *m.shape) for m in task[2:]]
        index = join(chosen).to(self.device).unbind(axis)
        noises, noise_tree = tree_flatten(join(drawn))
        noises = [leaf.unbind(axis) for leaf in noises]  # for each leaf, one tensor a step
        scalars = join([p.scalars for p in group])
        state, state_tree = tree_flatten(join([p.state for p in group]))
        structure = tree_structure(
            (
                tree_unflatten(state, state_tree),
                Batch(task.x, task.y, *masks),
                scalars,
                tree_unflatten([leaf[0] for leaf in noises], noise_tree),
            )
        )
        step = self._step(phase, width, structure)
        logs = []
        for s in range(steps):
            x, y = task.x[index[s]], task.y[index[s]]
            leaves = [*state, x, y, *masks, *scalars, *[leaf[s] for leaf in noises]]
            if self._steps_run[phase, width] == UNROLL_AFTER:
                step.run = unroll(step, leaves)
            out = step.run(*leaves)
            self._steps_run[phase, width] += 1
            state = out[: len(state)]
            logs.append(torch.stack(out[len(state) :]))  # (terms,) or (terms, K)

        for k, p in enumerate(group):
            p.state = tree_unflatten([leaf if alone else leaf[k] for leaf in state], state_tree)
        _, terms = tree_unflatten(out, step.result)
        # One by one: a reduction's order would depend on the width of the pack.
        total = functools.reduce(torch.add, [log.double() for log in logs])
        by_term = total.reshape(len(terms), width).tolist()
        for term, values in zip(terms, by_term, strict=True):
            for p, value in zip(group, values, strict=True):
                p.sums[term] += value
                p.counts[term] += steps
                if not math.isfinite(value) and not p.diverged:
                    p.diverged = f"{term} became {value} in task {t}, phase {phase}"

    def _step(self, phase: str, width: int, structure) -> Flat:
        if (phase, width) not in self._programs:
            step = self.method.steps[phase]
            self._programs[phase, width] = Flat(step if width == 1 else fuse(step), structure)
        return self._programs[phase, width]

    def _draw(self, phase: str, steps: int, p: _Progress, task: Batch, t: int):
        generator = p.generator(phase, t)
        return self._here(self.method.draw(generator, phase, steps, task, p.lane.hyper))

    def _init(self, seed: int, purpose: str, t: int) -> State:
        return self._here(self.method.init(noise.generator(seed, purpose, t)))

    def _here(self, tree):
        return tree_map(lambda leaf: leaf.to(self.device), tree)

    @torch.no_grad()
    def evaluate(self, states: Sequence[State], splits: Sequence, rivals: Tensor) -> np.ndarray:
        """Accuracy of K states on each of several splits.

        Args:
            states: one a lane.
            splits: of the tasks seen so far, each with x ``(N, *input)`` and y ``(N,)``.
            rivals: ``(C, C)`` bool, which logits compete (``Batch.rivals``).

        Returns:
            ``(K, len(splits))`` fractions in [0, 1].
        """
        predict = fuse(self.method.predict, shared=(1,))
        stacked, rivals = stack(states), rivals.to(self.device)
        rows = []
        for split in splits:
            hits = torch.zeros(len(states), device=self.device)
            parts = zip(
                split.x.split(EVALUATED_AT_ONCE), split.y.split(EVALUATED_AT_ONCE), strict=True
            )
            for x, y in parts:
                y = y.to(self.device)
                logits = predict(stacked, x.to(self.device))  # (K, N, C)
                answer = torch.where(rivals[y], logits, -torch.inf).argmax(-1)
                hits += (answer == y).sum(-1)
            rows.append(hits.double() / len(split.y))
        return torch.stack(rows, -1).cpu().numpy()


def learn(
    method: Method, stream: Stream, trials: Sequence[tuple[Hyper, int]], device="cpu"
) -> list[Walk]:
    """Walk the whole stream with every trial, and evaluate on validation data after each task.

    Args:
        method: built for the stream's problem and the shape that the trials share.
        stream: the tasks.
        trials: (hyperparameters, seed) of each lane.

    Returns:
        One ``Walk`` a trial. A diverged lane keeps NaN in the rows that it did not reach.
    """
    engine, tasks = Engine(method, stream.problem, device), len(stream.tasks)
    lanes = [engine.start(hyper, seed) for hyper, seed in trials]
    walks = [Walk(np.full((tasks, tasks), np.nan), [], one.state, None) for one in lanes]
    for t in range(tasks):
        alive = [k for k, walk in enumerate(walks) if walk.diverged is None]
        if not alive:
            break
        learned = engine.learn_task([lanes[k] for k in alive], stream.batch(t, method.data), t)
        sound = [(k, one) for k, one in zip(alive, learned, strict=True) if not one.diverged]
        if sound:
            splits = [task.validation for task in stream.tasks[: t + 1]]
            rows = engine.evaluate([one.state for _, one in sound], splits, stream.rivals(t))
            for (k, _), row in zip(sound, rows, strict=True):
                walks[k].accuracy[t, : t + 1] = row
        for k, one in zip(alive, learned, strict=True):
            lanes[k] = lanes[k]._replace(state=one.state)
            walks[k] = walks[k]._replace(
                state=one.state, losses=[*walks[k].losses, one.losses], diverged=one.diverged
            )
    return walks


def in_lane(hyper: Hyper, dtype: torch.dtype) -> Hyper:
    """Hyperparameters as 0-dim tensors.

    A field that is text (an order of phases, say) is read outside the lanes only; inside it is NaN,
    so that using it there shows.
    """

    def scalar(value: Scalar | str) -> Tensor:
        return torch.as_tensor(math.nan if isinstance(value, str) else value, dtype=dtype)

    return type(hyper)(*map(scalar, hyper))


def in_blocks(method: Method, hyper: Hyper, t: int) -> list[tuple[str, int]]:
    """A lane's program for task ``t`` cut into pieces of at most ``BLOCK`` steps, last first."""
    program = method.schedule(hyper, t)
    for phase, steps in program:
        if phase not in method.steps or steps < 0:
            raise ValueError(
                f"expected phases of {sorted(method.steps)} with steps >= 0, got {phase!r}, {steps}"
            )
    pieces = []
    for phase, steps in program:
        full, rest = divmod(steps, noise.BLOCK)
        pieces += [(phase, noise.BLOCK)] * full + [(phase, rest)] * (rest > 0)
    return pieces[::-1]
