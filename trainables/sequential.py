"""Sequential fine-tuning: each task is learned as if it were the only one. The floor.

    L(θ) = CE(θ; B)                                                                      (1)

on the current task's data, starting from the weights of the last task. Which logits compete is the
scenario's choice; in the class-incremental one all seen classes do, and old ones are forgotten.

Source: "none" / fine-tuning in van de Ven et al. 2022, https://doi.org/10.1038/s42256-022-00568-3.
Differs from the source: steps of a fixed number, on minibatches drawn with replacement.
"""

from typing import NamedTuple

from torch.func import grad

from trainables.engine.losses import cross_entropy
from trainables.engine.method import Batch, Method, Params, Problem, Scalar
from trainables.engine.nets import Net, classifier
from trainables.engine.optim import Moments, adam, moments


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


def loss(params: Params, batch: Batch, hyper: Hyper, net: Net):
    """Eq. (1)."""
    logits = net.apply(params, batch.x)
    value = cross_entropy(logits, batch.y, batch.rivals[batch.y], hyper.label_smoothing)
    return value, {"cross_entropy": value}


def build(problem: Problem, shape: Shape) -> Method:
    size = problem.input_shape
    net = classifier(shape.network, problem, size, shape.hidden, shape.layers)

    def init(generator):
        params = net.init(generator)
        return State(params, moments(params))

    def begin_task(state, fresh, task, hyper):
        return state._replace(moments=fresh.moments)

    def step(state, batch, hyper, noise):
        grads, terms = grad(loss, has_aux=True)(state.params, batch, hyper, net)
        params, past = adam(state.params, grads, state.moments, hyper.lr, hyper.beta1)
        return State(params, past), terms

    return Method(
        init=init,
        schedule=lambda hyper, t: [("train", int(hyper.steps))],
        steps={"train": step},
        predict=lambda state, x: net.apply(state.params, x),
        begin_task=begin_task,
        carried=lambda state: state.params,
        batch_size=shape.batch_size,
    )
