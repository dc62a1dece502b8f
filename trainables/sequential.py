"""Sequential fine-tuning: each task is learned as if it were the only one. The floor.

    L(θ) = CE(θ; B)                                                                      (1)

on the current task's data, starting from the weights of the last task. Which logits compete is the
scenario's choice; in the class-incremental one all seen classes do, and old ones are forgotten.

Source: "none" / fine-tuning in van de Ven et al. 2022, https://doi.org/10.1038/s42256-022-00568-3.
Differs from the source: steps of a fixed number, on minibatches drawn with replacement.
"""

from functools import partial
from typing import NamedTuple

from trainables.engine import classifier
from trainables.engine.losses import cross_entropy
from trainables.engine.method import Batch, Method, Params, Problem, Scalar
from trainables.engine.nets import Net
from trainables.engine.optim import Moments


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


class State(NamedTuple):
    params: Params  # θ
    moments: Moments


def loss(params: Params, state: State, batch: Batch, hyper: Hyper, noise, net: Net):
    """Eq. (1)."""
    logits = net.apply(params, batch.x)
    value = cross_entropy(logits, batch.y, batch.rivals[batch.y], hyper.label_smoothing)
    return value, {"cross_entropy": value}


def build(problem: Problem, shape: Shape) -> Method:
    net = classifier.network(problem, shape)
    return classifier.method(net, shape, State, classifier.down(partial(loss, net=net)))
