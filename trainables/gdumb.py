"""GDumb: a network trained from scratch on a balanced memory, and on nothing else. A sanity bound.

At the start of each task

    M ← as many of each class as of any other, from M and the task's examples            (1)

at random, and θ ← fresh weights. Every step of the task is then on

    L(θ) = CE(θ; B_M)                                                                    (2)

with B_M drawn from M. What a method that stores as much cannot beat owes nothing to what it learned
task by task.

Source: Prabhu et al., ECCV 2020, https://doi.org/10.1007/978-3-030-58536-5_31.
Differs from the source:
- (1) chooses among all examples of a task at once; the paper's sampler meets them one by one, and
  what it is left with is the same: chosen at random, balanced, dropped from the largest classes.
- Steps of a fixed number, of Adam; the paper has SGD with warm restarts, and CutMix.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from trainables.engine import classifier, memory
from trainables.engine import noise as draws
from trainables.engine.losses import cross_entropy
from trainables.engine.memory import Memory
from trainables.engine.method import Batch, Method, Params, Problem, Scalar
from trainables.engine.nets import Net
from trainables.engine.optim import Moments


class Shape(NamedTuple):  # static: trials are fused when these agree
    network: str = "perceptron"  # or "convolutional", for images and feature maps
    hidden: int = 128
    layers: int = 1  # hidden layers
    batch_size: int = 64  # |B_M|
    memory_size: int = memory.PLACES  # |M|, a budget: examples in all


class Hyper(NamedTuple):  # scalars: free to differ from lane to lane
    steps: Scalar = 300  # updates a task
    lr: Scalar = 1e-3
    beta1: Scalar = 0.9
    label_smoothing: Scalar = 0.0  # in [0, 1)


class State(NamedTuple):
    params: Params  # θ
    moments: Moments
    memory: Memory
    order: Tensor  # (N,), random: of a task's examples those with the smallest are chosen


def loss(params: Params, state: State, batch: Batch, hyper: Hyper, noise, net: Net):
    """Eq. (2). Of the batch nothing counts but which classes compete."""
    rows = memory.drawn(state.memory, noise["chance"])
    y = state.memory.y[rows]
    logits = net.apply(params, state.memory.x[rows])
    value = cross_entropy(logits, y, batch.rivals[y], hyper.label_smoothing)
    return value, {"cross_entropy": value}


def build(problem: Problem, shape: Shape) -> Method:
    net, most = classifier.network(problem, shape), problem.examples

    def start(params, moments):
        order = torch.zeros(most, dtype=problem.dtype)
        return State(params, moments, memory.empty(problem, shape.memory_size), order)

    def begin_task(state, fresh, task, hyper):
        """Eq. (1) and the fresh weights.

        Raises:
            ValueError: where a task has more examples than the problem says.
        """
        if len(task.y) > most:
            raise ValueError(
                f"expected at most {most} examples a task, as the problem says, got {len(task.y)}"
            )
        order = fresh.order[: len(task.y)]
        kept, _ = memory.with_task(state.memory, task, order, "balanced")
        return fresh._replace(memory=kept)

    method = classifier.method(
        net, shape, start, classifier.down(partial(loss, net=net)),
        begin_task=begin_task,
        draw=memory.drawing(problem, chance=shape.batch_size),
        carried=lambda state: state._replace(moments=(), order=()),
    )  # fmt: skip

    def init(generator):
        state = method.init(generator)
        return state._replace(order=draws.uniform(generator, most, dtype=problem.dtype))

    return method._replace(init=init)
