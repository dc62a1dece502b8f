"""Synaptic intelligence (SI): weights that brought the loss down are held where they were.

    L(θ) = CE(θ; B) + c Σ_i Ω̂_i (θ_i − θ*_i)²                                            (1)

with θ* the weights at the end of the last task. During a task every step adds to a path integral,

    ω_i ← ω_i − g_i Δθ_i                                                                 (2)

with g the gradient of CE alone and Δθ what the step changed; at its end Ω̂ ← Ω̂ + Ω / mean_i Ω_i,

    Ω_i = max(0, ω_i) / ( (θ_i − θ_i^start)² + ξ )                                       (3)

Source: Zenke et al., ICML 2017, https://arxiv.org/abs/1703.04200, and its authors' code.
Differs from the source:
- Ω is divided by its mean, so that c means the same in networks of all sizes and for all steps;
  ``raw_coefficient`` among the losses is c in units of Ω itself, of the last task.
- All weights are held, those of the output layer too.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad_and_value

from trainables.engine import classifier, importance
from trainables.engine.losses import cross_entropy
from trainables.engine.method import Batch, Method, Params, Problem, Scalar
from trainables.engine.nets import Net
from trainables.engine.optim import Moments, adam, flatten, unflatten


class Shape(NamedTuple):  # static: trials are fused when these agree
    network: str = "perceptron"  # or "convolutional", for images and feature maps
    hidden: int = 128
    layers: int = 1  # hidden layers
    batch_size: int = 64


class Hyper(NamedTuple):  # scalars: free to differ from lane to lane
    steps: Scalar = 300  # updates a task
    lr: Scalar = 1e-3
    beta1: Scalar = 0.9
    label_smoothing: Scalar = 0.0  # in [0, 1)
    si: Scalar = 1.0  # c >= 0
    damping: Scalar = 0.1  # ξ > 0, in squared units of a weight


class State(NamedTuple):
    params: Params  # θ
    moments: Moments
    anchor: Tensor  # (P,) θ*, from which a task starts
    importance: Tensor  # (P,) Ω̂
    path: Tensor  # (P,) ω of the task under way
    unit: Tensor  # (), mean of the last task's Ω; infinite before


def new_loss(params: Params, batch: Batch, hyper: Hyper, net: Net) -> Tensor:
    """CE of (1)."""
    logits = net.apply(params, batch.x)
    return cross_entropy(logits, batch.y, batch.rivals[batch.y], hyper.label_smoothing)


def descend(state: State, batch: Batch, hyper: Hyper, noise, net: Net):
    """A step down (1), and (2)."""
    slopes, new = grad_and_value(new_loss)(state.params, batch, hyper, net)
    held = importance.displacement(state.params, state.anchor, state.importance)
    slope, before = flatten(slopes), flatten(state.params)
    pull = 2 * hyper.si * state.importance * (before - state.anchor)
    grads = unflatten(slope + pull, state.params)
    params, past = adam(state.params, grads, state.moments, hyper.lr, hyper.beta1)
    path = state.path - slope * (flatten(params) - before)
    terms = {"cross_entropy": new, "si": held, "raw_coefficient": hyper.si / state.unit}
    return state._replace(params=params, moments=past, path=path), terms


def contribution(path: Tensor, moved: Tensor, damping: Scalar) -> Tensor:
    """Eq. (3), from ω and θ − θ^start."""
    return path.relu() / (moved.square() + damping)


def build(problem: Problem, shape: Shape) -> Method:
    net = classifier.network(problem, shape)

    def start(params, moments):
        flat = flatten(params)
        zero = torch.zeros_like(flat)
        return State(params, moments, flat, zero, zero, flat.new_tensor(torch.inf))

    def end_task(state, task, hyper, noise):
        here = flatten(state.params)
        found = contribution(state.path, here - state.anchor, hyper.damping)
        return state._replace(
            anchor=here,
            importance=state.importance + importance.in_units_of_mean(found),
            path=torch.zeros_like(here),
            unit=found.mean(),
        )

    return classifier.method(
        net, shape, start, partial(descend, net=net),
        end_task=end_task,
        carried=lambda state: state._replace(moments=(), path=()),
    )  # fmt: skip
