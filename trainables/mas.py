"""Memory aware synapses (MAS): weights that the outputs depend on are held where they were.

    L(θ) = CE(θ; B) + λ Σ_i Ω̂_i (θ_i − θ*_i)²                                            (1)

with θ* the weights at the end of the last task and Ω̂ ← γ Ω̂ + Ω / mean_i Ω_i, where

    Ω = mean_x | ∂ ‖f(x)‖² |                                                             (2)

is taken at the end of each task, with f the logits. No label enters it.

Source: Aljundi et al., ECCV 2018, https://arxiv.org/abs/1711.09601.
Differs from the source:
- Ω is divided by its mean, so that λ means the same in networks of all sizes and whatever the size
  of the logits; ``raw_coefficient`` among the losses is λ in units of Ω itself, of the last task.
- (2) is of single examples; in the authors' batches opposite signs cancel.
- f are the logits that compete in the scenario, of at most ``importance_examples`` of the task's
  examples.
- A decay γ, 1 in the paper, which sums.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from trainables.engine import classifier, importance
from trainables.engine.losses import cross_entropy
from trainables.engine.method import Batch, Method, Params, Problem, Scalar
from trainables.engine.nets import Net
from trainables.engine.optim import Moments, flatten


class Shape(NamedTuple):  # static: trials are fused when these agree
    network: str = "perceptron"  # or "convolutional", for images and feature maps
    hidden: int = 128
    layers: int = 1  # hidden layers
    batch_size: int = 64
    importance_examples: int = 256  # of a task, at most


class Hyper(NamedTuple):  # scalars: free to differ from lane to lane
    steps: Scalar = 300  # updates a task
    lr: Scalar = 1e-3
    beta1: Scalar = 0.9
    label_smoothing: Scalar = 0.0  # in [0, 1)
    mas: Scalar = 1.0  # λ >= 0
    decay: Scalar = 1.0  # γ in [0, 1]


class State(NamedTuple):
    params: Params  # θ
    moments: Moments
    anchor: Tensor  # (P,) θ*
    importance: Tensor  # (P,) Ω̂
    unit: Tensor  # (), mean of the last task's Ω; infinite before


def loss(params: Params, state: State, batch: Batch, hyper: Hyper, noise, net: Net):
    """Eq. (1)."""
    logits = net.apply(params, batch.x)
    new = cross_entropy(logits, batch.y, batch.rivals[batch.y], hyper.label_smoothing)
    held = importance.displacement(params, state.anchor, state.importance)
    terms = {"cross_entropy": new, "mas": held, "raw_coefficient": hyper.mas / state.unit}
    return new + hyper.mas * held, terms


def build(problem: Problem, shape: Shape) -> Method:
    net = classifier.network(problem, shape)

    def start(params, moments):
        flat = flatten(params)
        return State(params, moments, flat, torch.zeros_like(flat), flat.new_tensor(torch.inf))

    def end_task(state, task, hyper, noise):
        some = importance.chosen(task, noise["order"], shape.importance_examples)
        found = importance.sensitivity(net.apply, state.params, some)
        return state._replace(
            anchor=flatten(state.params),
            importance=hyper.decay * state.importance + importance.in_units_of_mean(found),
            unit=found.mean(),
        )

    return classifier.method(
        net,
        shape,
        start,
        classifier.down(partial(loss, net=net)),
        end_task=end_task,
        draw=importance.draw,
    )
