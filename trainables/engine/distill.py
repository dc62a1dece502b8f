"""A network that is held to what it said when the task began: what LwF and LwM share.

Shape letters: B batch, C classes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trainables.engine import classifier
from trainables.engine.method import Batch, Hyper, Method, Params, Problem, Shape
from trainables.engine.nets import Net
from trainables.engine.optim import Moments


class State(NamedTuple):
    params: Params  # θ, the student's
    moments: Moments
    frozen: Params  # θ̄, the teacher's: θ when the task began
    group: Tensor  # (C,) int64, equal for the classes of one task learned; else a class's own


def groups(state: State, batch: Batch, hyper: Hyper) -> Tensor:
    """``(C,)`` int64, equal for learned classes that share a softmax; else a class's own number.

    Those of each task do, or, where ``hyper.per_task`` is not set, all of them.
    """
    own = torch.arange(len(batch.learned), device=batch.learned.device)
    together = torch.where(batch.learned, batch.learned.int().argmax(), own)
    return torch.where(hyper.per_task > 0, state.group, together)


def method(problem: Problem, net: Net, shape: Shape, step: Callable, **parts: Any) -> Method:
    """A method whose only phase trains one network beside its teacher; as ``classifier.method``."""

    def start(params, moments):
        return State(params, moments, params, torch.arange(problem.classes))

    def begin_task(state, fresh, task, hyper):
        return state._replace(moments=fresh.moments, frozen=state.params)

    def end_task(state, task, hyper, noise):
        first = task.current.int().argmax()
        return state._replace(group=torch.where(task.current, first, state.group))

    own = {
        "begin_task": begin_task,
        "end_task": end_task,
        "carried": lambda state: (state.params, state.group),
    }
    return classifier.method(net, shape, start, step, **own | parts)
