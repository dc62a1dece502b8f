"""Dark experience replay (DER++): stored examples are rehearsed, and what the network made of them.

    L(θ) = CE(θ; B) + α mean_{i∈B_1} mean_k (l_k(x_i; θ) − a_ik)² + β CE(θ; B_2)          (1)

with B_1 and B_2 drawn one by one from the memory M of earlier tasks' examples, and a_i the logits
that the network had for x_i when it was stored; both terms are zero in the first task. k runs over
all classes, those to come too: that is what keeps their logits down for examples of earlier ones. M
is a uniform sample of all examples so far ("reservoir"), or has as many of each class ("balanced").
α = 0 is ER, β = 0 the paper's DER.

Source: Buzzega et al., NeurIPS 2020, https://arxiv.org/abs/2004.07211.
Differs from the source:
- A task's examples and their logits enter M at its end. In the paper they enter at the step that
  sees them, with the logits of that moment: its a_i come from all along a task, ours from where it
  led. Rehearsed are earlier tasks only.
- CE is among the logits that compete in the scenario. In the paper all do, so classes to come had
  been pushed down in a_i; ours are those of outputs not trained yet.
- Squares are a mean over logits as in the authors' code; the paper writes their sum.
- Adam, and no augmentation.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from trainables.engine import classifier, memory
from trainables.engine.errors import unknown
from trainables.engine.losses import cross_entropy, weighted
from trainables.engine.memory import Memory
from trainables.engine.method import Batch, Method, Params, Problem, Scalar
from trainables.engine.nets import Net
from trainables.engine.optim import Moments


class Shape(NamedTuple):  # static: trials are fused when these agree
    network: str = "perceptron"  # or "convolutional", for images and feature maps
    hidden: int = 128
    layers: int = 1  # hidden layers
    batch_size: int = 64
    replay_batch_size: int = 64  # |B_1| = |B_2|
    memory_size: int = memory.PLACES  # |M|, a budget: examples in all
    memory_policy: str = "reservoir"  # or "balanced"


class Hyper(NamedTuple):  # scalars: free to differ from lane to lane
    steps: Scalar = 300  # updates a task
    lr: Scalar = 1e-3
    beta1: Scalar = 0.9
    label_smoothing: Scalar = 0.0  # in [0, 1)
    logit_rehearsal: Scalar = 0.5  # α >= 0
    rehearsal: Scalar = 0.5  # β >= 0


class State(NamedTuple):
    params: Params  # θ
    moments: Moments
    memory: Memory
    logits: Tensor  # (M, C) a


def loss(params: Params, state: State, batch: Batch, hyper: Hyper, noise, net: Net):
    """Eq. (1)."""
    of_logits = memory.drawn(state.memory, noise["logits"])
    rows = memory.drawn(state.memory, noise["labels"])
    x, y = state.memory.x, state.memory.y[rows]
    all_x = torch.cat([batch.x.flatten(1), x[of_logits], x[rows]])
    sizes = len(batch.y), len(of_logits), len(rows)
    on_new, now, on_old = net.apply(params, all_x).split(sizes)
    smoothing, later = hyper.label_smoothing, batch.learned.any()
    new = cross_entropy(on_new, batch.y, batch.rivals[batch.y], smoothing)
    terms = {
        "logit_rehearsal": (now - state.logits[of_logits]).square().mean() * later,
        "rehearsal": cross_entropy(on_old, y, batch.rivals[y], smoothing) * later,
    }
    return new + weighted(terms, hyper), {"cross_entropy": new} | terms


def build(problem: Problem, shape: Shape) -> Method:
    """The method for one problem and shape.

    Raises:
        ValueError: unknown ``shape.memory_policy``.
    """
    net = classifier.network(problem, shape)
    if shape.memory_policy not in memory.POLICIES:
        raise unknown("memory_policy", shape.memory_policy, memory.POLICIES)

    def start(params, moments):
        empty = memory.empty(problem, shape.memory_size)
        logits = torch.zeros(shape.memory_size, problem.classes, dtype=problem.dtype)
        return State(params, moments, empty, logits)

    def end_task(state, task, hyper, noise):
        kept, rows = memory.with_task(state.memory, task, noise["key"], shape.memory_policy)
        logits = torch.cat([state.logits, net.apply(state.params, task.x)])
        return state._replace(memory=kept, logits=logits[rows])

    size = shape.replay_batch_size
    return classifier.method(
        net, shape, start, classifier.down(partial(loss, net=net)),
        end_task=end_task,
        draw=memory.drawing(problem, logits=size, labels=size),
    )  # fmt: skip
