"""Learning without memorizing (LwM): a network says what it said before, for the same reason.

    L(θ) = CE(θ; B) + β T² mean_x Σ_g KL( p̄_g(x) ‖ p_g(x) ) + γ mean_x ‖ Q(x) − Q̄(x) ‖₁  (1)
    Q(x) = M/‖M‖₂,   M = ReLU( Σ_k α_k A_k(x) ),   α_k = mean over pixels of ∂l_b/∂A_k    (2)

A bar marks the network as it was when the task began; b is the learned class that it holds for the
likeliest. A_k are the maps of the last convolution behind its ReLU, l the logits, M is Grad-CAM. p
and g are as in ``trainables/lwf.py``. The slope of Q with θ is that of α too.

Source: Dhar et al., CVPR 2019, https://arxiv.org/abs/1811.08051; M is of Selvaraju et al., ICCV
2017, https://arxiv.org/abs/1610.02391.
Differs from the source:
- Where the last hidden layer has no maps, in a perceptron or before an attribute head, attention is
  over its units: M_u = ReLU( ∂l_b/∂h_u h_u ). This is ours; ``network="convolutional"`` is theirs.
- T² as in Hinton et al.: β is 0.25 here where it is 1 without it and T is 2.
- The divergence in place of the cross-entropy: the same slope, and zero where nothing changed.
- CE is among the logits that compete in the scenario. Adam, and all weights from the start.
- The norm of (1) has no kink below 1e-6, where student and teacher are one but for rounding.
- β and γ are not in the paper. Public code is known in which no slope of γ's term reaches θ.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad

from trainables.engine import classifier, distill
from trainables.engine.distill import State
from trainables.engine.losses import ABSENT, cross_entropy, distillation, unit_rows, weighted
from trainables.engine.method import Batch, Method, Params, Problem, Scalar
from trainables.engine.nets import Net

__all__ = ["Hyper", "Shape", "State", "build"]


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
    lwf: Scalar = 0.25  # β >= 0
    temperature: Scalar = 2.0  # T > 0
    per_task: Scalar = False  # a softmax for each earlier task, else one for all
    attention: Scalar = 1.0  # γ >= 0


def attention(params: Params, hidden: Tensor, label: Tensor, net: Net) -> Tensor:
    """Q of eq. (2), ``(B, pixels or units)``.

    Args:
        hidden: ``(B, K, height, width)`` A, or ``(B, H)``; from ``params`` too.
        label: ``(B,)`` int64 b.
    """

    def of_label(a: Tensor) -> Tensor:
        return net.head(params, a).gather(1, label[:, None]).sum()

    slope = grad(of_label)(hidden)
    if hidden.dim() == 2:
        return unit_rows((slope * hidden).relu())
    weight = slope.mean((2, 3), keepdim=True)
    return unit_rows((weight * hidden).sum(1).relu().flatten(1))


def rounded(apart: Tensor) -> Tensor:
    """|apart|, without its kink below 1e-6.

    Student and teacher begin as one: there the kink turns errors of rounding into a slope of 1.
    """
    return (apart.square() + 1e-12).sqrt() - 1e-6


def loss(params: Params, state: State, batch: Batch, hyper: Hyper, noise, net: Net):
    """Eq. (1)."""
    now, before = (net.features(p, batch.x) for p in (params, state.frozen))
    logits, old_logits = net.head(params, now), net.head(state.frozen, before)
    new = cross_entropy(logits, batch.y, batch.rivals[batch.y], hyper.label_smoothing)
    group = distill.groups(state, batch, hyper)
    label = torch.where(batch.learned, old_logits, ABSENT).argmax(-1)
    apart = attention(params, now, label, net) - attention(state.frozen, before, label, net)
    terms = {
        "lwf": distillation(logits, old_logits, group, hyper.temperature),
        "attention": rounded(apart).sum(-1).mean() * batch.learned.any(),
    }
    return new + weighted(terms, hyper), {"cross_entropy": new, **terms}


def build(problem: Problem, shape: Shape) -> Method:
    net = classifier.network(problem, shape)
    return distill.method(problem, net, shape, classifier.down(partial(loss, net=net)))
