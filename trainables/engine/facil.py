"""Hyperparameters chosen task by task, as FACIL does it: plasticity first, then stability decays.

Before each task, from what was learned so far and with the data of that task alone:

1. Plasticity: fine-tune, that is with the method's coefficient at 0, at each rate. The best one is
   kept; it reaches an accuracy of A* on the task, each example answered among the task's classes.
2. Stability: train the method itself at that rate with the coefficients c, c/2, c/4, ...; the first
   one that reaches (1 − p) A* is taken. If seven of them fall short, the eighth is taken anyway.

No data of another task, past or to come, has a say: nothing leaks, and nothing looks at forgetting.

Source: Masana et al., TPAMI 2022, https://arxiv.org/abs/2010.15277, after De Lange et al., TPAMI
2021, https://arxiv.org/abs/1909.08383.
Differs from the source:
- Rates are Adam's; theirs, of SGD, go from 0.5 to 0.001. The first task tries all of them, the
  others those that are not above its choice.
- A method with stored examples has them in step 1 too.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from trainables.engine.learn import Stream, learn_task
from trainables.engine.method import Hyper, State
from trainables.engine.packs import Engine, Lane

RATES = (1e-2, 3e-3, 1e-3, 3e-4)
TRIES = 7  # coefficients that are judged
DROP = 0.2  # p, the share of A* that may be lost


class Attempt(NamedTuple):
    """A task learned with certain hyperparameters."""

    rate: float
    coefficient: float
    state: State
    accuracy: float  # on the task, among its own classes; 0 if it diverged
    diverged: str | None


class Walk(NamedTuple):
    """The way through the stream."""

    accuracy: np.ndarray  # (T, T): A[i, j] on task j after task i; NaN above the diagonal
    rates: list[float]  # one a task
    coefficients: list[float]  # one a task; 0 in the first, which has nothing to keep
    attempts: int  # how often a task was learned in all
    diverged: str | None  # then rows are missing


def walk(
    engine: Engine, stream: Stream, hyper: Hyper, coefficient: str, start: float, seed: int
) -> Walk:
    """Walk the stream, choosing rate and coefficient on validation data before every task.

    Args:
        engine: of the method. What is tried before a task is trained side by side.
        stream: the tasks.
        hyper: has ``lr``, the coefficient, and everything else as it stays.
        coefficient: name of the hyperparameter that trades plasticity for stability.
        start: its first value c, > 0.
        seed: of the walk.
    """
    lane, chosen, attempts = engine.start(hyper, seed), [], 0
    accuracy = np.full((len(stream.tasks), len(stream.tasks)), np.nan)
    for t in range(len(stream.tasks)):
        rates = [rate for rate in RATES if not t or rate <= chosen[0].rate]
        tried = attempt(engine, stream, t, lane, coefficient, [(rate, 0.0) for rate in rates])
        attempts += len(tried)
        best = max(tried, key=lambda one: one.accuracy)
        if t:
            halved = [(best.rate, start / 2**i) for i in range(TRIES + 1)]
            tried = attempt(engine, stream, t, lane, coefficient, halved)
            enough = [one.accuracy >= (1 - DROP) * best.accuracy for one in tried[:TRIES]]
            place = enough.index(True) if any(enough) else TRIES
            attempts += place + 1
            best = tried[place]
        chosen.append(best)
        if best.diverged is not None:
            break
        lane = lane._replace(state=best.state)
        splits = [task.validation for task in stream.tasks[: t + 1]]
        accuracy[t, : t + 1] = engine.evaluate([best.state], splits, stream.rivals(t))[0]
    rates, coefficients = [one.rate for one in chosen], [one.coefficient for one in chosen]
    return Walk(accuracy, rates, coefficients, attempts, chosen[-1].diverged)


def attempt(
    engine: Engine,
    stream: Stream,
    t: int,
    lane: Lane,
    coefficient: str,
    pairs: Sequence[tuple[float, float]],
) -> list[Attempt]:
    """Learn a task once for each pair of a rate and a coefficient, side by side."""
    batch, held_out = stream.batch(t, engine.method.data), stream.tasks[t].validation
    own = [{"lr": rate, coefficient: c} for rate, c in pairs]
    lanes = [lane._replace(hyper=lane.hyper._replace(**values)) for values in own]
    learned = learn_task(engine, lanes, batch, t)
    reached = engine.evaluate([one.state for one in learned], [held_out], stream.own())[:, 0]
    return [
        Attempt(*pair, one.state, 0.0 if one.diverged else float(share), one.diverged)
        for pair, one, share in zip(pairs, learned, reached, strict=True)
    ]
