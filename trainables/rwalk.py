"""Riemannian walk (RWalk): weights that outputs depend on, or that brought the loss down, are held.

    L(θ) = CE(θ; B) + λ Σ_i (F̂_i + ŝ_i) (θ_i − θ*_i)²                                    (1)

with θ* the weights at the end of the last task, and F̂ and ŝ what F and s were then, scaled to lie
between 0 and 1. While a task is learned, every Δt steps are an interval, and over its steps

    F_i ← α mean g_i² + (1 − α) F_i                                                      (2)
    ω_i = −Σ g_i Δθ_i                                                                    (3)
    s^t_i ← s^t_i + max(0, ω_i) / ( ½ F_i (θ_i − θ'_i)² + ε )                            (4)

θ' being the weights before them; g is the gradient of CE alone, and Δθ what a step changed. F goes
on from task to task. After task t, s ← ½ (s + s^t); after the first, s = s^t.

Source: Chaudhry et al., ECCV 2018, https://arxiv.org/abs/1801.10112, and its authors' code.
Differs from the source:
- F of (4) has the interval's own gradients in it; theirs is that before it.
- The code has no ½ in (4), and adds the average to the old s; here both are as in the paper.
- g is of a batch, as in the code. Its squares are those of single examples up to a factor and a
  bias, so λ is in units of F's range here, and not of its mean as in the other methods;
  ``raw_coefficient`` among the losses is λ in units of F itself.
- Steps after the last whole interval of a task enter neither F nor s.
- No examples are kept, as some are in the paper; the weights of the output layer are held too.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad_and_value

from trainables.engine import classifier, importance
from trainables.engine.losses import cross_entropy
from trainables.engine.method import Batch, Method, Params, Problem, Scalar
from trainables.engine.nets import Net, choose
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
    rwalk: Scalar = 1.0  # λ >= 0
    interval: Scalar = 10  # Δt >= 1
    fisher_rate: Scalar = 0.9  # α in (0, 1], the weight of the last interval
    damping: Scalar = 1e-3  # ε > 0, in units of the loss


class Walk(NamedTuple):
    """The task under way."""

    start: Tensor  # (P,) θ', before the interval
    path: Tensor  # (P,) ω
    squares: Tensor  # (P,) Σ g²
    count: Tensor  # (), steps of the interval so far
    fisher: Tensor  # (P,) F
    score: Tensor  # (P,) s^t


class State(NamedTuple):
    params: Params  # θ
    moments: Moments
    walk: Walk
    anchor: Tensor  # (P,) θ*
    importance: Tensor  # (P,) F̂ + ŝ
    score: Tensor  # (P,) s
    scale: Tensor  # (), of F̂ to F; zero before there is one


def new_loss(params: Params, batch: Batch, hyper: Hyper, net: Net) -> Tensor:
    """CE of (1)."""
    logits = net.apply(params, batch.x)
    return cross_entropy(logits, batch.y, batch.rivals[batch.y], hyper.label_smoothing)


def descend(state: State, batch: Batch, hyper: Hyper, noise, net: Net):
    """A step down (1), and (2) to (4) where an interval ends."""
    slopes, new = grad_and_value(new_loss)(state.params, batch, hyper, net)
    held = importance.displacement(state.params, state.anchor, state.importance)
    slope, before, walk = flatten(slopes), flatten(state.params), state.walk
    pull = 2 * hyper.rwalk * state.importance * (before - state.anchor)
    grads = unflatten(slope + pull, state.params)
    params, past = adam(state.params, grads, state.moments, hyper.lr, hyper.beta1)
    here = flatten(params)
    walk = walk._replace(
        path=walk.path - slope * (here - before),
        squares=walk.squares + slope.square(),
        count=walk.count + 1,
    )
    walk = choose(walk.count >= hyper.interval, scored(walk, here, hyper), walk)
    terms = {"cross_entropy": new, "rwalk": held, "raw_coefficient": hyper.rwalk * state.scale}
    return state._replace(params=params, moments=past, walk=walk), terms


def scored(walk: Walk, here: Tensor, hyper: Hyper) -> Walk:
    """Eqs. (2) and (4) at the end of an interval, and the next one's start.

    Args:
        here: ``(P,)`` θ.
    """
    a = hyper.fisher_rate
    fisher = a * walk.squares / walk.count + (1 - a) * walk.fisher
    length = 0.5 * fisher * (here - walk.start).square()
    score = walk.score + walk.path.relu() / (length + hyper.damping)
    return begun(here, fisher)._replace(score=score)


def begun(here: Tensor, fisher: Tensor) -> Walk:
    """A walk that starts from ``(P,)`` θ."""
    zero = torch.zeros_like(here)
    return Walk(here, zero, zero, here.new_zeros(()), fisher, zero)


def build(problem: Problem, shape: Shape) -> Method:
    net = classifier.network(problem, shape)

    def start(params, moments):
        flat = flatten(params)
        zero = torch.zeros_like(flat)
        return State(params, moments, begun(flat, zero), flat, zero, zero, flat.new_zeros(()))

    def begin_task(state, fresh, task, hyper):
        walk = begun(flatten(state.params), state.walk.fisher)
        return state._replace(moments=fresh.moments, walk=walk)

    def end_task(state, task, hyper, noise):
        fisher, own = state.walk.fisher, state.walk.score
        score = torch.where(task.learned.any(), 0.5 * (state.score + own), own)
        width = fisher.max() - fisher.min()
        return state._replace(
            anchor=flatten(state.params),
            importance=importance.in_units_of_range(fisher) + importance.in_units_of_range(score),
            score=score,
            scale=torch.where(width > 0, 1 / width, 0.0),
        )

    return classifier.method(
        net, shape, start, partial(descend, net=net),
        begin_task=begin_task,
        end_task=end_task,
        carried=lambda state: state._replace(moments=(), walk=state.walk.fisher),
    )  # fmt: skip
