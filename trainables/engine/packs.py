"""Packs: lanes of one method and shape, trained side by side by an engine.

A lane learns one task at a time. Inside it the lane has a program, a list of (phase, steps), and
noise, data and masks of its own; nothing says that its neighbours are in the same task, or at the
same step. The engine lets those lanes step together that wait for the same phase, as many as it
can, and lets the others wait: who waits costs nothing. So lanes come and go at any moment, none is
ever dragged along idle, and a lane's numbers depend on nothing but its own seed and
hyperparameters.
"""

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from trainables.engine import noise
from trainables.engine.fuse import Program, fuse, stack, unroll
from trainables.engine.layout import Layout, by_component, by_dtype
from trainables.engine.method import Batch, Hyper, Method, Noise, Problem, Scalar, State

EVALUATED_AT_ONCE = 4096  # examples
PATIENCE = 256  # packs that go ahead of a lane


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
    width: float  # lanes that stepped together, mean over this lane's steps
    seconds: float  # its share of the time that its packs took


@dataclass
class _Block:
    """Random numbers of a lane for the next ``noise.BLOCK`` steps of a phase."""

    rows: Tensor  # (BLOCK, B) int64, of the task's examples
    drawn: list[Tensor]  # labels of these rows, and noise; (BLOCK, ...) each
    used: int = 0


@dataclass(eq=False)
class Seat:
    """A lane inside a task. Its tensors are kept as the engine's layouts say."""

    lane: Lane
    t: int
    task: Batch
    on_cpu: Batch  # the same: random numbers are drawn on the CPU
    about: list[Tensor]  # masks and hyperparameters
    state: list[Tensor]
    program: list[tuple[str, int]]  # (phase, steps), last first
    generators: dict[str, torch.Generator] = field(default_factory=dict)
    blocks: dict[str, _Block] = field(default_factory=dict)
    sums: dict[str, Tensor] = field(default_factory=dict)  # by phase: (terms,) float64
    steps: Counter = field(default_factory=Counter)  # by phase
    waited: int = 0  # packs that went ahead since it last stepped
    beside: int = 0  # Σ over steps of the width of the pack
    seconds: float = 0.0
    diverged: str | None = None
    watch: Callable[[State], object] | None = None  # called after each of the next steps,
    watched: int = 0  # as many as these

    def generator(self, purpose: str) -> torch.Generator:
        if purpose not in self.generators:
            self.generators[purpose] = noise.generator(self.lane.seed, purpose, self.t)
        return self.generators[purpose]


class Engine:
    """A method on a device, the lanes that it trains, and its steps, each traced once a width.

    Args:
        method: built for ``problem``.
        problem: of the benchmark.
        device: where to train.
        widest: lanes that step together at most, >= 1.
    """

    def __init__(
        self,
        method: Method,
        problem: Problem,
        device: torch.device | str = "cpu",
        widest: int = 1024,
    ):
        self.method, self.problem, self.device = method, problem, torch.device(device)
        self.widest = widest
        self.narrowed = 0  # times that memory did not suffice
        self.seats: list[Seat] = []  # in the order in which their lanes came
        self.stepping: list[Seat] = []  # those of the last ``advance``, whatever became of it
        self._tasks: dict[int, tuple[Batch, Batch]] = {}  # as given, and on the device
        self._state: Any = None  # Layout of the state, of masks and hyperparameters, and
        self._about: Any = None
        self._drawn: dict[str, Layout] = {}  # of what is drawn for a phase
        self._terms: dict[str, list[str]] = {}  # of its losses
        self._programs: dict[tuple[str, int], Program] = {}
        self._pack = Pack([])  # the last one

    def start(self, hyper: Hyper, seed: int) -> Lane:
        """A trial before its first task."""
        return Lane(hyper, seed, self._init(seed, "init", 0))

    # ---- learning a task -------------------------------------------------------------------------

    @torch.no_grad()
    def join(self, lane: Lane, task: Batch, t: int) -> Seat:
        """Let a lane learn task ``t``.

        Args:
            lane: before that task.
            task: its training data, ``Stream.batch(t, method.data)``. The same object again is not
                copied to the device again.
            t: index of the task, from 0.

        Raises:
            ValueError: if the method schedules a phase that it does not have.
        """
        program = program_of(self.method, lane.hyper, t)
        if self._tasks.get(t, (None,))[0] is not task:
            self._tasks[t] = task, self._here(task)
        here = self._tasks[t][1]
        hyper = self._here(in_lane(lane.hyper, self.problem.dtype))
        fresh = self._init(lane.seed, "reset", t)
        state, about = self.method.begin_task(lane.state, fresh, here, hyper), (here[2:], hyper)
        if self._state is None:
            self._state, self._about = Layout(state, by_component), Layout(about, by_dtype)
        seat = Seat(lane, t, here, task, self._about.join(about), self._state.join(state), program)
        self.seats.append(seat)
        return seat

    def leave(self, seat: Seat) -> None:
        """Forget a lane, wherever it stands."""
        self.seats = [other for other in self.seats if other is not seat]

    @torch.no_grad()
    def advance(self) -> list[tuple[Seat, Learned]]:
        """Let one pack step, for at most ``noise.BLOCK`` steps.

        Returns:
            The lanes that have ended their task by it. A lane whose loss or state is no longer
            finite ends with the reason; its neighbours do not notice. Memory that does not suffice
            halves ``widest``, from then on.

        Raises:
            torch.OutOfMemoryError, RuntimeError: if there is not enough memory for one lane.
        """
        ended = self.stepping = [seat for seat in self.seats if not seat.program]
        if not ended and self.seats:
            phase, pack = self._next_pack()
            self.stepping = pack
            started = time.perf_counter()
            try:
                steps = min(min(seat.program[-1][1], self._left(seat, phase)) for seat in pack)
                if any(seat.watched for seat in pack):
                    steps = 1
                self._run(phase, steps, pack)
            except RuntimeError as error:
                if len(pack) == 1 or not out_of_memory(error):
                    raise
                self.widest, self.narrowed = len(pack) // 2, self.narrowed + 1
                self._pack = Pack([])
                return []
            for seat in pack:
                seat.seconds += (time.perf_counter() - started) / len(pack)
            ended = [seat for seat in pack if self._stepped(seat, phase, steps, len(pack))]
            for seat in pack:
                if seat.watch and seat.watched:
                    seat.watched -= 1
                    seat.watch(self._state.part(seat.state))
        results = [(seat, self._ended(seat)) for seat in ended]
        for seat in ended:
            self.leave(seat)
        return results

    def _next_pack(self) -> tuple[str, list[Seat]]:
        """The phase that can be stepped by most lanes, and these: those that came first.

        A lane that has waited too often has its way.
        """
        waiting = defaultdict(list)
        for seat in self.seats:
            waiting[seat.program[-1][0]].append(seat)
        phase = max(waiting, key=lambda phase: self._width(len(waiting[phase])))
        tired = max(self.seats, key=lambda seat: seat.waited)
        if tired.waited > PATIENCE:
            phase = tired.program[-1][0]
            waiting[phase].sort(key=lambda seat: seat is not tired)
        pack = waiting[phase][: self._width(len(waiting[phase]))]
        for seat in self.seats:
            seat.waited += 1
        for seat in pack:
            seat.waited = 0
        return phase, pack

    def _width(self, waiting: int) -> int:
        """Lanes to step together: 1, 2, 3, 4, 6, 8, 12, ..., so that few widths are traced."""
        if waiting >= self.widest:
            return self.widest
        power = 2 ** (waiting.bit_length() - 1)
        return power * 3 // 2 if waiting >= power * 3 // 2 else power

    def _left(self, seat: Seat, phase: str) -> int:
        """Steps of a phase that a lane has random numbers for; draws a new block if it has none."""
        block = seat.blocks.get(phase)
        if block is None or block.used == noise.BLOCK:
            size, among = (noise.BLOCK, self.method.batch_size), len(seat.task.y)
            rows = torch.randint(among, size, generator=seat.generator(f"batch:{phase}"))
            rows = rows.to(self.device)
            drawn = seat.task.y[rows], self._draw(phase, noise.BLOCK, seat)
            if phase not in self._drawn:
                self._drawn[phase] = Layout(drawn, by_dtype, lead=1)
            block = seat.blocks[phase] = _Block(rows, self._drawn[phase].join(drawn, lead=1))
        return noise.BLOCK - block.used

    def _run(self, phase: str, steps: int, seats: list[Seat]) -> None:
        """Step some lanes together. Nothing is written into them until all steps are done."""
        if self._pack.seats != seats:
            self._pack = Pack(seats)
        pack, blocks = self._pack, [seat.blocks[phase] for seat in seats]
        ahead = [slice(block.used, block.used + steps) for block in blocks]
        key, size = (phase, len(seats)), len(seats[0].state)
        program = self._programs.get(key)
        reads = program.reads if program else range(size + 1)
        state, sums = pack.gather(reads), torch.stack([self._sums(seat, phase) for seat in seats])
        x: Sequence[Tensor] = [sums] * steps  # which is any tensor, where examples are not read
        if size in reads:
            x = by_step(
                [seat.task.x[b.rows[s]] for seat, b, s in zip(seats, blocks, ahead, strict=True)]
            )
        drawn = [
            by_step([block.drawn[i][s] for block, s in zip(blocks, ahead, strict=True)])
            for i in range(len(blocks[0].drawn))
        ]
        for s in range(steps):
            own = x[s], *[piece[s] for piece in drawn], *pack.about, sums
            if program is None:
                step = self._step(phase, seats[0])
                program = self._programs[key] = unroll(fuse(step), [*state, *own])
            *state, sums = program.run(*state, *own)
        assert program
        pack.scatter(state, program.writes)
        for seat, own in zip(seats, sums.unbind(0), strict=True):
            seat.sums[phase] = own

    def _step(self, phase: str, seat: Seat) -> Callable:
        """A step of one lane as a function of the tensors that lanes keep.

        The losses are added up in the step, one by one: the order of a reduction would depend on
        how many steps are taken at once.
        """

        def step(*tensors):
            parts = iter(tensors)
            state = self._state.part([next(parts) for _ in seat.state])
            x = next(parts)
            y, drawn = self._drawn[phase].part([next(parts) for _ in seat.blocks[phase].drawn])
            masks, hyper = self._about.part([next(parts) for _ in seat.about])
            state, terms = self.method.steps[phase](state, Batch(x, y, *masks), hyper, drawn)
            sums = next(parts) + torch.stack(list(terms.values())).double()
            self._terms[phase] = list(terms)
            return *self._state.join(state), sums

        return step

    def _sums(self, seat: Seat, phase: str) -> Tensor:
        """The losses of a phase so far, added up."""
        if phase not in self._terms:  # a step says what they are
            block = seat.blocks[phase]
            first = seat.task.x[block.rows[0]], *[piece[0] for piece in block.drawn]
            self._step(phase, seat)(*seat.state, *first, *seat.about, torch.zeros(()))
        if phase not in seat.sums:
            none = torch.zeros(len(self._terms[phase]), dtype=torch.float64, device=self.device)
            seat.sums[phase] = none
        return seat.sums[phase]

    def _stepped(self, seat: Seat, phase: str, steps: int, width: int) -> bool:
        """Count steps taken; whether the lane's task has ended by them."""
        block, (_, left) = seat.blocks[phase], seat.program.pop()
        if left > steps:
            seat.program.append((phase, left - steps))
        block.used += steps
        seat.steps[phase] += steps
        seat.beside += steps * width
        # Where a lane looks depends on the lane alone, never on its neighbours.
        looks = [phase] if block.used == noise.BLOCK else []
        for name in looks if seat.program else seat.sums:
            for term, value in zip(self._terms[name], seat.sums[name].tolist(), strict=True):
                if not math.isfinite(value) and not seat.diverged:
                    seat.diverged = f"{term} became {value} in task {seat.t}, phase {name}"
        return not seat.program or seat.diverged is not None

    def _ended(self, seat: Seat) -> Learned:
        """The lane after its task."""
        state = self._state.part(seat.state)
        if seat.diverged is None:
            drawn = tree_map(lambda leaf: leaf[0], self._draw("end_task", 1, seat))
            _, hyper = self._about.part(seat.about)
            state = self.method.end_task(state, seat.task, hyper, drawn)
            if not all(bool(leaf.isfinite().all()) for leaf in tree_leaves(state)):
                seat.diverged = f"weights are not finite after task {seat.t}"
        sums, counts = defaultdict(float), Counter()
        for phase, total in seat.sums.items():
            for term, value in zip(self._terms[phase], total.tolist(), strict=True):
                sums[term] += value
                counts[term] += seat.steps[phase]
        losses = {term: value / counts[term] for term, value in sums.items()}
        width = seat.beside / max(1, seat.steps.total())
        return Learned(state, losses, seat.diverged, width, seat.seconds)

    def _draw(self, phase: str, steps: int, seat: Seat) -> Noise:
        drawn = self.method.draw(seat.generator(phase), phase, steps, seat.on_cpu, seat.lane.hyper)
        return self._here(drawn)

    def _init(self, seed: int, purpose: str, t: int) -> State:
        return self._here(self.method.init(noise.generator(seed, purpose, t)))

    def _here(self, tree):
        return tree_map(lambda leaf: leaf.to(self.device), tree)

    # ---- what was learned ------------------------------------------------------------------------

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
            right = torch.zeros(len(states), device=self.device)
            parts = zip(
                split.x.split(EVALUATED_AT_ONCE), split.y.split(EVALUATED_AT_ONCE), strict=True
            )
            for x, y in parts:
                y = y.to(self.device)
                logits = predict(stacked, x.to(self.device))  # (K, N, C)
                right += hits(logits, y, rivals)
            rows.append(right.double() / len(split.y))
        return torch.stack(rows, -1).cpu().numpy()


class Pack:
    """Lanes that step together, their tensors stacked along a leading axis K.

    Lanes often step together again, in this phase or in the next one: what is stacked stays so.
    """

    def __init__(self, seats: list[Seat]):
        self.seats, self.stacked = seats, {}  # which of the state's tensors -> (K, ...)
        if seats:
            pieces = zip(*(seat.about for seat in seats), strict=True)
            self.about = [torch.stack(piece) for piece in pieces]

    def gather(self, reads: Container[int]) -> list[Tensor]:
        """The state's tensors; those that are not read are any lane's."""
        for i in range(len(self.seats[0].state)):
            if i in reads and i not in self.stacked:
                self.stacked[i] = torch.stack([seat.state[i] for seat in self.seats])
        return [self.stacked.get(i, leaf) for i, leaf in enumerate(self.seats[0].state)]

    def scatter(self, state: list[Tensor], writes: frozenset[int]) -> None:
        """Hand what was written back to the lanes."""
        for i in writes & set(range(len(state))):
            self.stacked[i] = state[i]
            for seat, leaf in zip(self.seats, state[i].unbind(0), strict=True):
                seat.state[i] = leaf


def by_step(tensors: list[Tensor]) -> Sequence[Tensor]:
    """(steps, ...) of each lane -> (K, ...) of each step."""
    return torch.stack(tensors, 1).unbind(0)


def hits(logits: Tensor, y: Tensor, rivals: Tensor) -> Tensor:
    """How many examples are classified correctly, each among the logits that compete.

    Args:
        logits: ``(..., N, C)``.
        y: ``(N,)`` int64.
        rivals: ``(C, C)`` bool, as ``Batch.rivals``.

    Returns:
        ``(...)`` int64.
    """
    answer = torch.where(rivals[y], logits, -torch.inf).argmax(-1)
    return (answer == y).sum(-1)


def program_of(method: Method, hyper: Hyper, t: int) -> list[tuple[str, int]]:
    """A lane's (phase, steps) for task ``t``, last first, none of them empty.

    Raises:
        ValueError: for a phase that the method does not have, or a negative number of steps.
    """
    program = method.schedule(hyper, t)
    for phase, steps in program:
        if phase not in method.steps or steps < 0:
            raise ValueError(
                f"expected phases of {sorted(method.steps)} with steps >= 0, got {phase!r}, {steps}"
            )
    return [(phase, steps) for phase, steps in reversed(program) if steps]


def in_lane(hyper: Hyper, dtype: torch.dtype) -> Hyper:
    """Hyperparameters as 0-dim tensors.

    A field that is text (an order of phases, say) is read outside the lanes only; inside it is NaN,
    so that using it there shows.
    """

    def scalar(value: Scalar | str) -> Tensor:
        return torch.as_tensor(math.nan if isinstance(value, str) else value, dtype=dtype)

    return type(hyper)(*map(scalar, hyper))


def out_of_memory(error: BaseException) -> bool:
    """Whether a GPU's or the machine's memory did not suffice."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
