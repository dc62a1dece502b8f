"""A classifier that learns one task after the other: what methods with a single network share.

A method brings its ``State``, with the fields ``params`` and ``moments`` and what it remembers
beside them, and its loss. Its ``Hyper`` has ``steps``, ``lr`` and ``beta1``, its ``Shape`` the
fields that ``network`` reads.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.func import grad

from trainables.engine import nets
from trainables.engine.method import Method, Problem, Shape, State
from trainables.engine.nets import Net
from trainables.engine.optim import adam, moments


def network(problem: Problem, shape: Shape) -> Net:
    """``(B, *input)`` -> logits ``(B, C)``, from ``shape.network``, ``hidden`` and ``layers``."""
    size = problem.input_shape
    return nets.classifier(shape.network, problem, size, shape.hidden, shape.layers)


def method(
    net: Net,
    shape: Shape,
    start: Callable[[Any, Any], State],
    step: Callable,
    **parts: Any,
) -> Method:
    """A method whose only phase trains one network.

    Args:
        net: the classifier.
        shape: with ``batch_size``.
        start: (params, moments) -> the state before the first task.
        step: of that phase, as in ``Method.steps``; ``down(loss)``, where nothing else happens.
        parts: of ``Method``, where the method has its own.
    """

    def init(generator: torch.Generator) -> State:
        params = net.init(generator)
        return start(params, moments(params))

    own = {
        "init": init,
        "schedule": lambda hyper, t: [("train", int(hyper.steps))],
        "steps": {"train": step},
        "predict": lambda state, x: net.apply(state.params, x),
        "begin_task": lambda state, fresh, task, hyper: state._replace(moments=fresh.moments),
        "carried": lambda state: state._replace(moments=()),
        "batch_size": shape.batch_size,
    }
    return Method(**own | parts)


def down(loss: Callable) -> Callable:
    """A step of Adam down a loss in the weights of the network.

    Args:
        loss: (params, state, batch, hyper, noise) -> the loss, and its terms; inside a lane.
    """

    def step(state, batch, hyper, noise):
        grads, terms = grad(loss, has_aux=True)(state.params, state, batch, hyper, noise)
        params, past = adam(state.params, grads, state.moments, hyper.lr, hyper.beta1)
        return state._replace(params=params, moments=past), terms

    return step
