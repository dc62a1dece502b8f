"""Elastic weight consolidation (EWC): weights that earlier tasks need are held where they were.

    L(θ) = CE(θ; B) + λ/2 Σ_s Σ_i F̂^s_i (θ_i − θ^s_i)²              separate             (1)
    L(θ) = CE(θ; B) + λ/2 Σ_i F̂_i (θ_i − θ*_i)²                     online               (2)

over the tasks s learned before, with θ^s the weights at the end of task s and θ* the last of them.
F̂^s = F^s / mean_i F^s_i, and online F̂ ← γ F̂ + F̂^s. F^s is the diagonal of the Fisher
information at θ^s on the data of task s,

    F^s = mean_x Σ_k p(k|x) (∂ log p(k|x))²                         labels "exact"        (3)

or with one label drawn from p for each example ("sample"), or with the true one ("true").

(1) is kept as one sum of squares: Σ_s F̂^s (θ − θ^s)² differs from F̄ (θ − θ̄)², F̄ = Σ_s F̂^s,
θ̄ = Σ_s F̂^s θ^s / F̄, by a number that does not depend on θ and is added.

Source: Kirkpatrick et al., PNAS 2017, https://arxiv.org/abs/1612.00796 (1); Schwarz et al., ICML
2018, https://arxiv.org/abs/1805.06370 (2); van de Ven, 2025, https://arxiv.org/abs/2502.11756 (3).
Differs from the source:
- F^s is divided by its mean, so that λ means the same in networks of all sizes and after tasks easy
  and hard; ``raw_coefficient`` among the losses is λ in units of F itself, of the last task.
- F is taken over the logits that compete in the scenario, as CE is, from at most
  ``importance_examples`` of the task's examples.
- All weights are held, those of the output layer too.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from trainables.engine import classifier, importance
from trainables.engine.errors import unknown
from trainables.engine.losses import cross_entropy
from trainables.engine.method import Batch, Method, Params, Problem, Scalar
from trainables.engine.nets import Net
from trainables.engine.optim import Moments, flatten

LABELS = ("exact", "sample", "true")


class Shape(NamedTuple):  # static: trials are fused when these agree
    network: str = "perceptron"  # or "convolutional", for images and feature maps
    hidden: int = 128
    layers: int = 1  # hidden layers
    batch_size: int = 64
    importance_labels: str = "exact"  # of F, or "sample", "true"
    importance_examples: int = 256  # of a task, at most


class Hyper(NamedTuple):  # scalars: free to differ from lane to lane
    steps: Scalar = 300  # updates a task
    lr: Scalar = 1e-3
    beta1: Scalar = 0.9
    label_smoothing: Scalar = 0.0  # in [0, 1)
    ewc: Scalar = 1.0  # λ >= 0
    online: Scalar = True  # (2), else (1)
    decay: Scalar = 1.0  # γ in [0, 1], online


class State(NamedTuple):
    params: Params  # θ
    moments: Moments
    anchor: Tensor  # (P,) θ* or θ̄
    importance: Tensor  # (P,) F̂ or F̄
    rest: Tensor  # (), what (1) has beside its sum of squares
    unit: Tensor  # (), mean of the last task's F; infinite before


def loss(params: Params, state: State, batch: Batch, hyper: Hyper, noise, net: Net):
    """Eq. (1) or (2)."""
    logits = net.apply(params, batch.x)
    new = cross_entropy(logits, batch.y, batch.rivals[batch.y], hyper.label_smoothing)
    held = 0.5 * (importance.displacement(params, state.anchor, state.importance) + state.rest)
    terms = {"cross_entropy": new, "ewc": held, "raw_coefficient": hyper.ewc / state.unit}
    return new + hyper.ewc * held, terms


def consolidated(state: State, found: Tensor, hyper: Hyper) -> State:
    """What a task leaves behind.

    Args:
        found: ``(P,)``, its F.
    """
    here, own = flatten(state.params), importance.in_units_of_mean(found)
    if hyper.online:
        return state._replace(
            anchor=here, importance=hyper.decay * state.importance + own, unit=found.mean()
        )
    both = state.importance + own
    share = own / both.clamp_min(torch.finfo(own.dtype).tiny)
    apart = (here - state.anchor).square()
    return state._replace(
        anchor=state.anchor + share * (here - state.anchor),
        importance=both,
        rest=state.rest + (state.importance * share * apart).sum(),
        unit=found.mean(),
    )


def build(problem: Problem, shape: Shape) -> Method:
    """The method for one problem and shape.

    Raises:
        ValueError: unknown ``shape.importance_labels``.
    """
    net = classifier.network(problem, shape)
    if shape.importance_labels not in LABELS:
        raise unknown("importance_labels", shape.importance_labels, LABELS)

    def start(params, moments):
        flat = flatten(params)
        zero = torch.zeros_like(flat)
        return State(params, moments, flat, zero, zero.sum(), zero.sum() + torch.inf)

    def end_task(state, task, hyper, noise):
        some = importance.chosen(task, noise["order"], shape.importance_examples)
        about = net.apply, state.params, some
        if shape.importance_labels == "sample":
            found = importance.fisher(*about, noise["label"][: len(some.y)])
        elif shape.importance_labels == "true":
            found = importance.empirical_fisher(*about)
        else:
            found = importance.exact_fisher(*about)
        return consolidated(state, found, hyper)

    return classifier.method(
        net,
        shape,
        start,
        classifier.down(partial(loss, net=net)),
        end_task=end_task,
        draw=importance.draw,
    )
