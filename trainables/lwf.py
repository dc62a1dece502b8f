"""Learning without forgetting (LwF): of new data a network goes on to say what it said before.

    L(θ) = CE(θ; B) + λ T² mean_x Σ_g KL( p̄_g(x) ‖ p_g(x) ) + μ E(θ; B)                  (1)
    p_g(x) = softmax( l_g(x) / T ),   l_g the logits of the classes of g                 (2)

A bar marks the network as it was when the task began. There is a g for each earlier task, or one g
of all classes learned ("per_task" or not). E is nothing, or of the last hidden layer h

    mean_x mean_u ( h_u(x) − h̄_u(x) )²                               extra "hint"        (3)
    mean_i ‖ G_i/‖G_i‖ − Ḡ_i/‖Ḡ_i‖ ‖²,   G_ij = ⟨h(x_i), h(x_j)⟩     extra "similarity"  (4)

Source: Li & Hoiem, TPAMI 2018, https://arxiv.org/abs/1606.09282; (3) Romero et al., ICLR 2015,
https://arxiv.org/abs/1412.6550; (4) Tung & Mori, ICCV 2019, https://arxiv.org/abs/1907.09682.
Differs from the source:
- T², as in Hinton et al., https://arxiv.org/abs/1503.02531, so that λ means the same at all T: it
  is 0.25 here where it is 1 in the paper, whose T is 2.
- The divergence in place of the cross-entropy: the same slope, and zero where nothing changed.
- CE is among the logits that compete in the scenario, and not among the new classes' only. All
  earlier tasks are asked about each example, so its own need not be known in any scenario; one g
  of all classes, as in much of the code about, is another objective from the third task on.
- All weights are trained from the start, by Adam; new outputs alone are not warmed up.
- (3) has no layer between h and h̄, nor a stage of its own. (4) is divided by the examples and not
  by their square, so μ is 23 here where it is 3000 in batches of 128 in the paper.
"""

from functools import partial
from typing import NamedTuple

from trainables.engine import classifier, distill
from trainables.engine.classifier import down
from trainables.engine.distill import State
from trainables.engine.losses import (
    alignment,
    cross_entropy,
    distillation,
    similarity_drift,
    weighted,
)
from trainables.engine.method import Batch, Method, Params, Problem, Scalar
from trainables.engine.nets import Net

__all__ = ["Hyper", "Shape", "State", "build"]

EXTRAS = {"hint": alignment, "similarity": similarity_drift}


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
    lwf: Scalar = 0.25  # λ >= 0
    temperature: Scalar = 2.0  # T > 0
    per_task: Scalar = True  # a softmax for each earlier task, else one for all
    extra: str = "none"  # or "hint", "similarity"
    hint: Scalar = 1.0  # μ >= 0 of (3)
    similarity: Scalar = 1.0  # μ >= 0 of (4)


def loss(params: Params, state: State, batch: Batch, hyper: Hyper, noise, net: Net, extra: str):
    """Eq. (1)."""
    now, before = (net.features(p, batch.x) for p in (params, state.frozen))
    logits, old_logits = net.head(params, now), net.head(state.frozen, before)
    new = cross_entropy(logits, batch.y, batch.rivals[batch.y], hyper.label_smoothing)
    group = distill.groups(state, batch, hyper)
    terms = {"lwf": distillation(logits, old_logits, group, hyper.temperature)}
    if extra in EXTRAS:
        terms[extra] = EXTRAS[extra](now.flatten(1), before.flatten(1), batch.learned)
    return new + weighted(terms, hyper), {"cross_entropy": new, **terms}


def schedule(hyper: Hyper, t: int) -> list[tuple[str, int]]:
    """A phase is named after what it has beside distillation."""
    return [("train" if hyper.extra == "none" else hyper.extra, int(hyper.steps))]


def build(problem: Problem, shape: Shape) -> Method:
    net = classifier.network(problem, shape)
    steps = {phase: down(partial(loss, net=net, extra=phase)) for phase in ("train", *EXTRAS)}
    return distill.method(problem, net, shape, steps["train"], steps=steps, schedule=schedule)
