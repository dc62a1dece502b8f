"""Experience replay (ER): examples of earlier tasks are stored and rehearsed.

    L(θ) = CE(θ; B) + w CE(θ; B_M)                                                       (1)

with B_M drawn from the memory M of earlier tasks' examples, zero in the first task. M is a uniform
sample of all examples so far ("reservoir"), or has as many of each class ("balanced"). Each example
competes with its own rivals.

Source: Chaudhry et al. 2019, https://arxiv.org/abs/1902.10486; Riemer et al., ICLR 2019,
https://arxiv.org/abs/1810.11910 (reservoir).
Differs from the source:
- w is a hyperparameter; the papers average over B and B_M together, which is w = |B_M| / |B|.
- A task's examples enter M at its end, not while it runs: rehearsed are earlier tasks only. What a
  reservoir holds after a task has the same distribution.
- Many passes over a task; the first paper is about one.
"""

from functools import partial
from typing import NamedTuple

from trainables.engine import classifier, memory
from trainables.engine.errors import unknown
from trainables.engine.losses import rehearsed_cross_entropy
from trainables.engine.memory import Memory
from trainables.engine.method import Batch, Method, Params, Problem, Scalar
from trainables.engine.nets import Net
from trainables.engine.optim import Moments


class Shape(NamedTuple):  # static: trials are fused when these agree
    network: str = "perceptron"  # or "convolutional", for images and feature maps
    hidden: int = 128
    layers: int = 1  # hidden layers
    batch_size: int = 64
    replay_batch_size: int = 64  # |B_M|
    memory_size: int = memory.PLACES  # |M|, a budget: examples in all
    memory_policy: str = "balanced"  # or "reservoir"


class Hyper(NamedTuple):  # scalars: free to differ from lane to lane
    steps: Scalar = 300  # updates a task
    lr: Scalar = 1e-3
    beta1: Scalar = 0.9
    label_smoothing: Scalar = 0.0  # in [0, 1)
    rehearsal: Scalar = 1.0  # w >= 0


class State(NamedTuple):
    params: Params  # θ
    moments: Moments
    memory: Memory


def loss(params: Params, state: State, batch: Batch, hyper: Hyper, noise, net: Net):
    """Eq. (1)."""
    rows = memory.drawn(state.memory, noise["chance"])
    value, terms = rehearsed_cross_entropy(
        lambda x: net.apply(params, x), batch, state.memory.x[rows], state.memory.y[rows],
        hyper.rehearsal, hyper.label_smoothing,
    )  # fmt: skip
    real, replayed = terms.values()
    return value, {"cross_entropy": real, "rehearsal": replayed}


def build(problem: Problem, shape: Shape) -> Method:
    """The method for one problem and shape.

    Raises:
        ValueError: unknown ``shape.memory_policy``.
    """
    net = classifier.network(problem, shape)
    if shape.memory_policy not in memory.POLICIES:
        raise unknown("memory_policy", shape.memory_policy, memory.POLICIES)

    def start(params, moments):
        return State(params, moments, memory.empty(problem, shape.memory_size))

    def end_task(state, task, hyper, noise):
        kept, _ = memory.with_task(state.memory, task, noise["key"], shape.memory_policy)
        return state._replace(memory=kept)

    return classifier.method(
        net, shape, start, classifier.down(partial(loss, net=net)),
        end_task=end_task,
        draw=memory.drawing(problem, chance=shape.replay_batch_size),
    )  # fmt: skip
