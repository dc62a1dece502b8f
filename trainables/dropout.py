"""Dropout: each task is learned by ever other parts of a network, as if it were the only one.

    L(θ) = CE(W h_L + b; B),   h_l = m_l ⊙ ReLU(W_l h_{l−1} + b_l),   h_0 = m_0 ⊙ x       (1)
    m_0 ~ Bernoulli(1 − p_in) / (1 − p_in),   m_l ~ Bernoulli(1 − p_hidden) / (1 − p_hidden)  (2)

with a draw of m for every unit, example and step. Predictions are those of the whole network,
m = 1: what a unit passes on is the same in the mean.

Source: Goodfellow et al., 2013, https://arxiv.org/abs/1312.6211, who find that networks trained so
forget less; dropout is of Srivastava et al., JMLR 2014.
Differs from the source:
- (2) divides while training; the source multiplies weights by 1 − p afterwards.
- Adam, without a bound on the norm of a unit's weights; rectifiers only, not maxout and others.
- Networks are as wide as those of other methods, unless widths are searched.
"""

from functools import partial
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from trainables.engine import classifier, nets
from trainables.engine.losses import cross_entropy
from trainables.engine.method import Batch, Method, Params, Problem, Scalar
from trainables.engine.nets import Net
from trainables.engine.optim import Moments


class Shape(NamedTuple):  # static: trials are fused when these agree
    hidden: int = 128
    layers: int = 1  # hidden layers
    batch_size: int = 64


class Hyper(NamedTuple):  # scalars: free to differ from lane to lane
    steps: Scalar = 300  # updates a task
    lr: Scalar = 1e-3
    beta1: Scalar = 0.9
    label_smoothing: Scalar = 0.0  # in [0, 1)
    p_in: Scalar = 0.2  # chance of an input to be missing, in [0, 1)
    p_hidden: Scalar = 0.5  # of a hidden unit


class State(NamedTuple):
    params: Params  # θ
    moments: Moments


def loss(params: Params, state: State, batch: Batch, hyper: Hyper, noise, net: Net, shape: Shape):
    """Eq. (1).

    Args:
        noise: bool, ``input`` (B, D) and ``hidden`` (B, L·H): what is not missing.
    """
    x = batch.x.flatten(1) * noise["input"] / (1 - hyper.p_in)
    masks = (noise["hidden"] / (1 - hyper.p_hidden)).split(shape.hidden, -1)
    logits = net.head(params, net.features(params, x, masks))
    value = cross_entropy(logits, batch.y, batch.rivals[batch.y], hyper.label_smoothing)
    return value, {"cross_entropy": value}


def build(problem: Problem, shape: Shape) -> Method:
    size = problem.input_shape
    net = nets.classifier("perceptron", problem, size, shape.hidden, shape.layers)

    def draw(generator, phase, steps, task, hyper):
        """Where m of (2) is not 0."""
        if phase != "train":
            return {}

        def there(units: int, p: float) -> Tensor:
            return torch.rand(steps, shape.batch_size, units, generator=generator) >= p

        return {
            "input": there(prod(size), hyper.p_in),
            "hidden": there(shape.layers * shape.hidden, hyper.p_hidden),
        }

    step = classifier.down(partial(loss, net=net, shape=shape))
    return classifier.method(net, shape, State, step, draw=draw)
