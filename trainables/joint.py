"""Joint training: at each task, train on the data of all tasks so far. The ceiling.

    L(θ) = CE(θ; B),   B from the union of the data of tasks 0..t                        (1)

Every past example is kept, which is what a continual learner may not do.

Source: "joint" / cumulative training in van de Ven et al. 2022,
https://doi.org/10.1038/s42256-022-00568-3.
Differs from the source: the number of steps grows with the number of tasks seen, so that each
example is met as often as under fine-tuning; a ceiling on one task's budget would be under-trained.
"""

from functools import partial
from typing import NamedTuple

from trainables.engine import classifier
from trainables.engine.losses import cross_entropy
from trainables.engine.method import Batch, Method, Params, Problem, Scalar
from trainables.engine.nets import Net, choose
from trainables.engine.optim import Moments


class Shape(NamedTuple):  # static: trials are fused when these agree
    network: str = "perceptron"  # or "convolutional", for images and feature maps
    hidden: int = 128
    layers: int = 1  # hidden layers
    batch_size: int = 64


class Hyper(NamedTuple):  # scalars: free to differ from lane to lane
    steps: Scalar = 300  # updates for each task seen so far
    lr: Scalar = 1e-3
    beta1: Scalar = 0.9
    label_smoothing: Scalar = 0.0  # in [0, 1)
    from_scratch: Scalar = True  # fresh weights at each task, else those of the last one


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

    def begin_task(state, fresh, task, hyper):
        params = choose(hyper.from_scratch > 0, fresh.params, state.params)
        return State(params, fresh.moments)

    return classifier.method(
        net, shape, State, classifier.down(partial(loss, net=net)),
        schedule=lambda hyper, t: [("train", int(hyper.steps) * (t + 1))],
        begin_task=begin_task,
        data="seen",
    )  # fmt: skip
