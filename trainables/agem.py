"""Averaged gradient episodic memory (A-GEM): no step may raise the loss on stored examples.

    θ ← θ − η g̃                                                                           (1)
    g̃ = g − min(0, g·r) / (r·r + ε) r                                                     (2)

with g the gradient of CE on the task's minibatch and r that of CE on a batch drawn from the memory
of earlier tasks' examples, each among its own rivals; r = 0 in the first task. So g̃·r >= 0, to ε.

Source: Chaudhry et al., ICLR 2019, https://arxiv.org/abs/1812.00420; ε as van de Ven et al. 2022,
https://doi.org/10.1038/s42256-022-00568-3.
Differs from the source:
- The memory has M examples in all, as many of each class, where the paper has m of each class; a
  task's examples enter it at the task's end.
- Many passes over a task; the paper is about one.
- g̃ goes through Adam, as van de Ven et al. have it: one rate then serves all streams, but a step
  along a preconditioned g̃ may raise the memory's loss. ``optimizer="sgd"`` is the paper's step.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad_and_value

from trainables.engine import classifier, memory
from trainables.engine.errors import unknown
from trainables.engine.losses import cross_entropy
from trainables.engine.memory import Memory
from trainables.engine.method import Batch, Method, Params, Problem, Scalar
from trainables.engine.nets import Net
from trainables.engine.optim import UPDATES, Moments, Update, flatten, unflatten

EPSILON = 1e-7  # ε: where the loss on the memory is 0, so is r


class Shape(NamedTuple):  # static: trials are fused when these agree
    network: str = "perceptron"  # or "convolutional", for images and feature maps
    hidden: int = 128
    layers: int = 1  # hidden layers
    batch_size: int = 64
    replay_batch_size: int = 128  # of r
    memory_size: int = memory.PLACES  # M, a budget: examples in all
    optimizer: str = "adam"  # or "sgd", as in the paper


class Hyper(NamedTuple):  # scalars: free to differ from lane to lane
    steps: Scalar = 300  # updates a task
    lr: Scalar = 1e-3  # η
    beta1: Scalar = 0.9  # of Adam, or the momentum of SGD
    label_smoothing: Scalar = 0.0  # in [0, 1)


class State(NamedTuple):
    params: Params  # θ
    moments: Moments
    memory: Memory


def loss(params: Params, x: Tensor, y: Tensor, rivals: Tensor, hyper: Hyper, net: Net) -> Tensor:
    """CE of examples of whatever tasks, with rivals as in ``Batch``."""
    return cross_entropy(net.apply(params, x), y, rivals[y], hyper.label_smoothing)


def projected(g: Tensor, r: Tensor) -> Tensor:
    """Eq. (2), of vectors ``(P,)``."""
    return g - (g @ r).clamp_max(0) / (r @ r + EPSILON) * r


def descend(state: State, batch: Batch, hyper: Hyper, noise, net: Net, update: Update):
    """Eq. (1), or with g̃ through the optimiser."""
    rows = memory.drawn(state.memory, noise["chance"])
    slope = grad_and_value(partial(loss, rivals=batch.rivals, hyper=hyper, net=net))
    of_new, new = slope(state.params, batch.x, batch.y)
    of_old, old = slope(state.params, state.memory.x[rows], state.memory.y[rows])
    later = batch.learned.any()
    g, r = flatten(of_new), torch.where(later, flatten(of_old), 0.0)
    grads = unflatten(projected(g, r), state.params)
    params, past = update(state.params, grads, state.moments, hyper.lr, hyper.beta1)
    opposed = (g @ r < 0).to(g.dtype)  # among the losses, the share of steps that were projected
    terms = {"cross_entropy": new, "rehearsal": old * later, "projected": opposed}
    return state._replace(params=params, moments=past), terms


def build(problem: Problem, shape: Shape) -> Method:
    """Averaged gradient episodic memory.

    Raises:
        ValueError: unknown ``shape.optimizer``.
    """
    if shape.optimizer not in UPDATES:
        raise unknown("optimizer", shape.optimizer, UPDATES)
    net = classifier.network(problem, shape)
    step = partial(descend, net=net, update=UPDATES[shape.optimizer])

    def start(params, moments):
        return State(params, moments, memory.empty(problem, shape.memory_size))

    def end_task(state, task, hyper, noise):
        kept, _ = memory.with_task(state.memory, task, noise["key"], "balanced")
        return state._replace(memory=kept)

    return classifier.method(
        net, shape, start, step,
        end_task=end_task,
        draw=memory.drawing(problem, chance=shape.replay_batch_size),
    )  # fmt: skip
