"""A trainable embedder in front of any method that has a classifier: features that drift.

``in_front_of(method)`` is the same method on features e(x) of a trunk e that the classifier's steps
train along,

    classifier's loss + w1 Σ_i F_i (θ_i − θ̄_i)²                 embedder_ewc            (1)
                      + w2 Σ_i Ω_i (θ_i − θ̄_i)²                 embedder_mas            (2)

with θ the trunk's parameters, θ̄ these at the end of the last task, F the Fisher information and Ω
the sensitivity of the squared logits, each task's with mean 1, summed over the tasks learned. All
other players see the features and leave the trunk alone: what they remember is of the trunk as it
was.

Source: I. Skorokhodov's LGM code of 2020 (universome/class-norm, commits c700450 to 0e91223).
(1) Kirkpatrick et al. 2017, (2) Aljundi et al. 2018.
Differs from the sources:
- F and Ω are computed at the end of a task, on its own examples, from the gradients of single
  examples; the LGM code took the next task's, and gradients of batches.
- Labels for F are drawn from the model's own predictions, among the classes that compete.
- Each task's F and Ω are divided by their mean, so that a weight means the same in networks of all
  sizes and after tasks easy and hard (where two digits are told apart for sure, F is next to 0: in
  its units that of the next task was 10⁷). The LGM code scaled F to [0, 1]; there is no factor of
  1/2, and no dropout of F.
- The trunk has one Adam of its own, with the usual moments.
"""

from collections import namedtuple
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad

from trainables.engine import importance
from trainables.engine.importance import displacement, in_units_of_mean
from trainables.engine.method import Batch, Hyper, Method, Params, Problem, Shape
from trainables.engine.nets import Net, encoder
from trainables.engine.optim import Moments, adam, adam_on, flatten, moments

EXAMPLES = 256  # of a task, that importances are computed from
SHAPE = {"embedder_hidden": 128, "embedder_layers": 1, "embedder_features": 64}
HYPER = {
    "embedder_lr": 1e-3,
    "use_embedder_ewc": False,  # whether (1) is in the loss
    "embedder_ewc": 1.0,  # w1 >= 0, if so
    "use_embedder_mas": False,
    "embedder_mas": 1.0,  # w2
}


class State(NamedTuple):
    embedder: Params  # θ
    embedder_moments: Moments
    anchor: Tensor  # (P,) θ̄
    fisher: Tensor  # (P,) F
    sensitivity: Tensor  # (P,) Ω
    method: Any  # state of the method on the features


def in_front_of(module: ModuleType | SimpleNamespace) -> SimpleNamespace:
    """The method with a trunk: its ``Shape`` and ``Hyper`` with some more fields, and ``build``."""

    def extended(kind, more: dict[str, Any]):
        defaults = [*kind._field_defaults.values(), *more.values()]
        return namedtuple(kind.__name__, [*kind._fields, *more], defaults=defaults)

    return SimpleNamespace(
        __name__=module.__name__,
        Shape=extended(module.Shape, SHAPE),
        Hyper=extended(module.Hyper, HYPER),
        State=State,
        build=lambda problem, shape: build(module, problem, shape),
    )


def trunk(problem: Problem, shape: Shape) -> Net:
    """e: ``(B, D)`` -> ``(B, F)``, its features behind a ReLU. ``shape.network`` says of what."""
    size, hidden, layers = problem.input_shape, shape.embedder_hidden, shape.embedder_layers
    features = shape.embedder_features
    net = encoder(shape.network, size, hidden, layers, features, dtype=problem.dtype)
    return Net(net.init, lambda params, x: F.relu(net.apply(params, x.flatten(1))))


def build(module: ModuleType | SimpleNamespace, problem: Problem, shape: Shape) -> Method:
    """``module``'s method on the trunk's features.

    Raises:
        ValueError: if the method has no classifier that learns from real examples.
    """
    own = module.Shape(*(getattr(shape, field) for field in module.Shape._fields))
    on_features = problem._replace(input_shape=(shape.embedder_features,))
    method: Method = module.build(on_features, own._replace(network="perceptron"))
    e, loss = trunk(problem, shape), method.classifier_loss
    if loss is None:
        name = module.__name__.split(".")[-1]
        raise ValueError(
            f"{name} does not go with embedder 'trainable': it has no classifier that learns from "
            "real examples; use 'identity', 'base_task' or a network of torchvision"
        )

    def init(generator):
        params = e.init(generator)
        flat = flatten(params)
        zero = torch.zeros_like(flat)
        inner = method.init(generator)
        return State(params, moments(params), flat, zero, zero, inner)

    def embedded(state: State, batch: Batch) -> Batch:
        return batch._replace(x=e.apply(state.embedder, batch.x))

    def begin_task(state, fresh, task, hyper):
        inner = method.begin_task(state.method, fresh.method, embedded(state, task), hyper)
        return state._replace(embedder_moments=fresh.embedder_moments, method=inner)

    def on(step: Callable) -> Callable:
        """A step of the method, on the features of the batch."""

        def step_on_features(state, batch, hyper, noise):
            inner, terms = step(state.method, embedded(state, batch), hyper, noise)
            return state._replace(method=inner), terms

        return step_on_features

    def classifier_step(state, batch, hyper, noise):
        def objective(classifier, params):
            seen = batch._replace(x=e.apply(params, batch.x))
            value, terms = loss(classifier, state.method, seen, hyper, noise)
            held = penalties(params, state, hyper)
            total = value + sum(getattr(hyper, name) * term for name, term in held.items())
            return total, terms | held

        players = state.method.classifier, state.embedder
        (of_head, of_trunk), terms = grad(objective, (0, 1), has_aux=True)(*players)
        params, past = adam(state.embedder, of_trunk, state.embedder_moments, hyper.embedder_lr)
        inner = adam_on(state.method, "classifier", of_head, hyper)
        return state._replace(embedder=params, embedder_moments=past, method=inner), terms

    def end_task(state, task, hyper, noise):
        inner = method.end_task(state.method, embedded(state, task), hyper, noise["method"])
        state = state._replace(method=inner)
        some = importance.chosen(task, noise["order"], EXAMPLES)
        label = noise["label"][: len(some.y)]
        logits = lambda params, x: method.predict(state.method, e.apply(params, x))  # noqa: E731
        fisher = importance.fisher(logits, state.embedder, some, label)
        sensitivity = importance.sensitivity(logits, state.embedder, some)
        return state._replace(
            anchor=flatten(state.embedder),
            fisher=state.fisher + in_units_of_mean(fisher),
            sensitivity=state.sensitivity + in_units_of_mean(sensitivity),
        )

    def draw(generator, phase, steps, task, hyper):
        drawn = method.draw(generator, phase, steps, task, hyper)
        if phase != "end_task":
            return drawn
        n, dtype = len(task.y), problem.dtype
        order = torch.rand(steps, n, generator=generator, dtype=dtype)
        label = torch.rand(steps, n, generator=generator, dtype=dtype)
        return {"method": drawn, "order": order, "label": label}

    steps = {phase: on(step) for phase, step in method.steps.items()}
    sample = method.sample
    return method._replace(
        init=init,
        steps=steps | {"classifier": classifier_step},
        predict=lambda state, x: method.predict(state.method, e.apply(state.embedder, x)),
        begin_task=begin_task,
        end_task=end_task,
        draw=draw,
        sample=sample and (lambda state, y, z: sample(state.method, y, z)),
        classifier_loss=None,
        features=lambda state, x: e.apply(state.embedder, x),
        carried=lambda state: (*state[:1], *state[2:5], method.carried(state.method)),
    )


def penalties(params: Params, state: State, hyper: Hyper) -> dict[str, Tensor]:
    """(1) and (2), zero in the first task and where they are not used."""
    ewc = displacement(params, state.anchor, state.fisher)
    mas = displacement(params, state.anchor, state.sensitivity)
    return {
        "embedder_ewc": ewc * (hyper.use_embedder_ewc > 0),
        "embedder_mas": mas * (hyper.use_embedder_mas > 0),
    }
