"""Incremental classifier and representation learning (iCaRL): the nearest mean of stored examples.

    L(θ) = ℓ(B) + w ℓ(B_M)                                                               (1)
    ℓ = mean_i mean_k c_k [ −q_ik log g_ik − (1 − q_ik) log(1 − g_ik) ],  g = σ(l(x; θ))   (2)

with B_M drawn from the memory M of earlier tasks' examples, its term zero in the first task. k runs
over the classes that compete for x_i. For those of the task under way q_ik = [k = y_i] and c_k = 1;
for those of earlier tasks q_ik is what g_ik was at the start of the task, and c_k = d.

M has as many of each class, in the order in which herding takes them at the end of their task,

    p_j = argmin_x ‖ μ − (φ(x) + Σ_{i<j} φ(p_i)) / j ‖                                   (3)

with φ the last hidden layer, scaled to length 1, and μ the mean of φ over the class. What is left
of a class when M is shared with more are the first of them. Answers are those of the nearest mean,

    argmin_k ‖ φ(x) − μ_k ‖                                                              (4)

with μ_k the mean of φ over what is stored of class k, scaled to length 1, at the end of each task.

Source: Rebuffi et al., CVPR 2017, https://arxiv.org/abs/1611.07725.
Differs from the source:
- B and B_M are drawn apart and w is a hyperparameter; one batch from both together, as in the
  paper, is w = |M| / N. So is d, 1 in the paper.
- (2) is a mean over classes, as in the authors' code; the paper writes a sum. Adam, which we use,
  makes no difference of it; under gradient descent the mean needs a C times larger rate.
- (2) is over the logits that compete in the scenario: where tasks are told at test time, old ones
  are distilled on stored examples only.
- No image is averaged with its mirror image, and no weight decays.
"""

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.engine import classifier, memory
from trainables.engine.losses import class_means
from trainables.engine.memory import Memory
from trainables.engine.method import Batch, Method, Params, Problem, Scalar
from trainables.engine.nets import Net
from trainables.engine.optim import Moments


class Shape(NamedTuple):  # static: trials are fused when these agree
    network: str = "perceptron"  # or "convolutional", for images and feature maps
    hidden: int = 128
    layers: int = 1  # hidden layers
    batch_size: int = 64
    replay_batch_size: int = 64  # |B_M|
    memory_size: int = memory.PLACES  # |M|, a budget: examples in all


class Hyper(NamedTuple):  # scalars: free to differ from lane to lane
    steps: Scalar = 300  # updates a task
    lr: Scalar = 1e-3
    beta1: Scalar = 0.9
    distillation: Scalar = 1.0  # d >= 0
    rehearsal: Scalar = 1.0  # w >= 0


class State(NamedTuple):
    params: Params  # θ
    moments: Moments
    memory: Memory  # its keys are positions in the order of herding
    means: Tensor  # (C, H) μ_k; 0 where nothing is stored
    old: Params  # θ at the start of the task


def binary(
    logits: Tensor, before: Tensor, y: Tensor, batch: Batch, distillation: Scalar
) -> tuple[Tensor, Tensor]:
    """Eq. (2), of new classes and of old ones, to be added.

    Args:
        logits, before: ``(B, C)``, of the network now and at the start of the task.
        y: ``(B,)`` int64.
        batch: says which classes are new, and which compete.
    """
    competing, old = batch.rivals[y], batch.learned & ~batch.current
    own = (y[:, None] == torch.arange(logits.shape[1], device=y.device)).to(logits.dtype)
    target = torch.where(old, before.sigmoid(), own)
    each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    each = each / competing.sum(-1, keepdim=True).clamp_min(1) / len(y)
    new = torch.where(competing & ~old, each, 0.0).sum()
    return new, distillation * torch.where(competing & old, each, 0.0).sum()


def loss(params: Params, state: State, batch: Batch, hyper: Hyper, noise, net: Net):
    """Eq. (1)."""
    rows = memory.drawn(state.memory, noise["chance"])
    x = torch.cat([batch.x.flatten(1), state.memory.x[rows]])
    sizes = len(batch.y), len(rows)
    on_new, on_old = net.apply(params, x).split(sizes)
    new_before, old_before = net.apply(state.old, x).split(sizes)
    d, later = hyper.distillation, batch.learned.any()
    new, distilled = binary(on_new, new_before, batch.y, batch, d)
    replayed = sum(binary(on_old, old_before, state.memory.y[rows], batch, d)) * later
    terms = {"cross_entropy": new, "distillation": distilled, "rehearsal": replayed}
    return new + distilled + hyper.rehearsal * replayed, terms


def directions(net: Net, params: Params, x: Tensor) -> Tensor:
    """``(B, H)`` φ; 0 where no hidden unit answers."""
    return F.normalize(net.features(params, x).flatten(1))


def herding(phi: Tensor, count: int) -> Tensor:
    """Eq. (3): ``(N,)`` int64, from 0, when herding takes each example of a class.

    Args:
        phi: ``(N, H)``.
        count: how many it takes; the others follow as they stand.
    """
    n, mean, taken = len(phi), phi.mean(0), torch.zeros_like(phi[0])
    place = torch.arange(n, device=phi.device)
    apart, position = phi.square().sum(-1), count + place
    for j in range(min(count, n)):
        # ‖j μ − Σ φ(p_i) − φ(x)‖² but for what is the same for all
        best = (apart - 2 * phi @ ((j + 1) * mean - taken)).argmin()
        apart = torch.where(place == best, torch.inf, apart)
        position = torch.where(place == best, j, position)
        taken = taken + phi.index_select(0, best[None])[0]
    return position


def positions(phi: Tensor, task: Batch, places: int) -> Tensor:
    """``(N,)``, of each example of a task in its class's order of herding.

    As many as a class may have are taken; others are stored only where another class has too few.

    Args:
        phi: ``(N, H)``.
        places: of the memory.
    """
    count = -(-places // int(task.seen.sum()))
    found = torch.zeros_like(phi[:, 0])
    for k in task.y.unique():
        mine = task.y == k
        found = found.masked_scatter(mine, herding(phi[mine], count).to(found))
    return found


def prototypes(net: Net, params: Params, stored: Memory, classes: int) -> Tensor:
    """``(C, H)`` μ_k of (4)."""
    place = torch.arange(len(stored.y), device=stored.y.device)
    y = torch.where(place < stored.taken, stored.y, -1)
    return F.normalize(class_means(directions(net, params, stored.x), y, classes)[0])


def build(problem: Problem, shape: Shape) -> Method:
    net = classifier.network(problem, shape)

    def start(params, moments):
        empty = memory.empty(problem, shape.memory_size)
        means = prototypes(net, params, empty, problem.classes)
        return State(params, moments, empty, means, params)

    def begin_task(state, fresh, task, hyper):
        return state._replace(moments=fresh.moments, old=state.params)

    def end_task(state, task, hyper, noise):
        phi = directions(net, state.params, task.x)
        key = positions(phi, task, shape.memory_size)
        kept, _ = memory.with_task(state.memory, task, key, "balanced")
        means = prototypes(net, state.params, kept, problem.classes)
        return state._replace(memory=kept, means=means)

    def predict(state, x):
        """Minus the squared distances of (4)."""
        phi, means = directions(net, state.params, x), state.means
        lengths = phi.square().sum(-1, keepdim=True) + means.square().sum(-1)
        return 2 * phi @ means.T - lengths

    return classifier.method(
        net, shape, start, classifier.down(partial(loss, net=net)),
        begin_task=begin_task,
        end_task=end_task,
        predict=predict,
        draw=memory.drawing(problem, chance=shape.replay_batch_size),
        carried=lambda state: state._replace(moments=(), old=()),
    )  # fmt: skip
