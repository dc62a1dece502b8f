"""Walk a task stream with one trial or many, in this process."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from trainables.engine.method import Batch, Hyper, Method, Problem, State
from trainables.engine.packs import Engine, Lane, Learned


class Stream(Protocol):
    """What is needed of a task stream; ``trainables.benchmarks`` makes them."""

    @property
    def problem(self) -> Problem: ...
    @property
    def tasks(self) -> Sequence[Any]: ...  # splits ``train``, ``validation``: x (N, *input), y (N,)
    def batch(self, t: int, data: Literal["task", "seen"] = "task") -> Batch: ...
    def rivals(self, t: int) -> Tensor: ...
    def own(self) -> Tensor: ...


class Walk(NamedTuple):
    """A trial's way through a whole stream."""

    accuracy: np.ndarray  # (T, T): A[i, j] on task j after task i; NaN above the diagonal
    losses: list[dict[str, float]]  # one a task
    state: State
    diverged: str | None


def learn_task(engine: Engine, lanes: Sequence[Lane], task: Batch, t: int) -> list[Learned]:
    """What becomes of every lane in task ``t``, all of them before it."""
    seats, results = [engine.join(lane, task, t) for lane in lanes], {}
    while not all(seat in results for seat in seats):
        results |= dict(engine.advance())
    return [results[seat] for seat in seats]


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
    batches = [stream.batch(t, method.data) for t in range(tasks)]
    lanes = [engine.start(hyper, seed) for hyper, seed in trials]
    walks = [Walk(np.full((tasks, tasks), np.nan), [], one.state, None) for one in lanes]
    inside = {engine.join(one, batches[0], 0): k for k, one in enumerate(lanes)}
    while inside:
        for seat, learned in engine.advance():
            k, t = inside.pop(seat), seat.t
            walks[k] = walks[k]._replace(
                state=learned.state,
                losses=[*walks[k].losses, learned.losses],
                diverged=learned.diverged,
            )
            if learned.diverged is not None:
                continue
            splits = [task.validation for task in stream.tasks[: t + 1]]
            row = engine.evaluate([learned.state], splits, stream.rivals(t))
            walks[k].accuracy[t, : t + 1] = row[0]
            if t + 1 < tasks:
                lane = seat.lane._replace(state=learned.state)
                inside[engine.join(lane, batches[t + 1], t + 1)] = k
    return walks
