"""How much each weight matters to what was learned, and what it costs to move it.

All are functions of the weights at the end of a task and of that task's own examples, from the
gradients of single examples: squares and absolute values of a batch's gradient are others.

Shape letters: N examples, C classes, P parameters.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.utils._pytree import tree_map

from trainables.engine.losses import log_probs
from trainables.engine.method import Batch, Hyper, Params
from trainables.engine.optim import flatten

Logits = Callable[[Params, Tensor], Tensor]  # (params, (B, *input)) -> (B, C)
CHUNK = 64  # examples whose gradients are held at once


def exact_fisher(logits: Logits, params: Params, task: Batch) -> Tensor:
    """Diagonal of the Fisher information, its expectation over labels computed and not sampled.

        F = mean_n Σ_k p(k|x_n) ( ∂ log p(k|x_n) )²     over the classes k that compete

    Args:
        logits: the classifier.
        params: where; P numbers in all.
        task: the N examples.

    Returns:
        ``(P,)``, >= 0, in the order of ``optim.flatten``.
    """
    rivals = task.rivals[task.y]
    competing = rivals.any(0).nonzero()[:, 0]

    def of_class(q, x, rival, k):
        return log_probs(logits(q, x[None]), rival)[0].gather(0, k[None])[0]

    total = torch.zeros_like(flatten(params))
    for k in competing:
        label = k.expand(len(task.y))
        p = vmap(of_class, (None, 0, 0, 0))(params, task.x, rivals, label).exp()
        total = total + squared_slopes(of_class, params, (task.x, rivals, label), p)
    return total


def fisher(logits: Logits, params: Params, task: Batch, label: Tensor) -> Tensor:
    """Diagonal of the Fisher information, with one label drawn for each example.

        F = mean_n ( ∂ log p(k_n|x_n) )²,   k_n ~ p(·|x_n)     among the classes that compete

    Args:
        logits, params, task: as ``exact_fisher``.
        label: ``(N,)``, uniform in [0, 1): draws k_n.
    """
    rivals = task.rivals[task.y]

    def log_p(q, x, rival):
        return log_probs(logits(q, x[None]), rival)[0]

    p = vmap(log_p, (None, 0, 0))(params, task.x, rivals).exp()
    drawn = (p.cumsum(-1) < label[:, None] * p.sum(-1, keepdim=True)).sum(-1)
    drawn = drawn.clamp_max(p.shape[-1] - 1)
    of_label = lambda q, x, rival, k: log_p(q, x, rival).gather(0, k[None])[0]  # noqa: E731
    return squared_slopes(of_label, params, (task.x, rivals, drawn))


def empirical_fisher(logits: Logits, params: Params, task: Batch) -> Tensor:
    """Mean squared gradient of the log-probability of the true label; not a Fisher information.

        F = mean_n ( ∂ log p(y_n|x_n) )²

    Args:
        logits, params, task: as ``exact_fisher``.
    """

    def of_true(q, x, rival, y):
        return log_probs(logits(q, x[None]), rival)[0].gather(0, y[None])[0]

    return squared_slopes(of_true, params, (task.x, task.rivals[task.y], task.y))


def squared_slopes(
    function: Callable, params: Params, examples: tuple[Tensor, ...], weight: Tensor | float = 1.0
) -> Tensor:
    """``(P,)``: mean over examples of weight · (∂ function)².

    Args:
        function: (params, *one of each of ``examples``) -> a number.
        weight: ``(N,)`` or one for all.
    """
    slopes = vmap(grad(function), (None, *[0] * len(examples)), chunk_size=CHUNK)
    n = len(examples[0])
    weight = torch.as_tensor(weight, dtype=flatten(params).dtype).expand(n)
    found = tree_map(
        lambda slope: torch.einsum("n...,n->...", slope.square(), weight) / n,
        slopes(params, *examples),
    )
    return flatten(found)


def sensitivity(logits: Logits, params: Params, task: Batch) -> Tensor:
    """How far the squared length of the logits moves with each weight.

        Ω = mean_n | ∂ Σ_k l_k(x_n)² |     over the classes k that compete

    Args:
        logits, params, task: as ``exact_fisher``; labels only say which classes compete.
    """

    def energy(q, x, rival):
        return torch.where(rival, logits(q, x[None])[0], 0.0).square().sum()

    slopes = vmap(grad(energy), (None, 0, 0), chunk_size=CHUNK)
    found = slopes(params, task.x, task.rivals[task.y])
    return flatten(tree_map(lambda slope: slope.abs().mean(0), found))


def in_units_of_mean(importance: Tensor) -> Tensor:
    """Numbers >= 0 divided by their mean; all zero if they are."""
    return importance / importance.mean().clamp_min(torch.finfo(importance.dtype).tiny)


def in_units_of_range(importance: Tensor) -> Tensor:
    """Numbers scaled to [0, 1] by the smallest and the largest; all zero if they are equal."""
    low, high = importance.min(), importance.max()
    return (importance - low) / (high - low).clamp_min(torch.finfo(importance.dtype).tiny)


def displacement(params: Params, anchor: Tensor, importance: Tensor) -> Tensor:
    """Σ_i Ω_i (θ_i − θ*_i)², with θ* and Ω of ``(P,)``."""
    return (importance * (flatten(params) - anchor).square()).sum()


def chosen(task: Batch, order: Tensor, count: int) -> Batch:
    """At most so many examples of a task, those with the smallest of the numbers ``(N,)``."""
    rows = order.argsort()[:count]
    return task._replace(x=task.x[rows], y=task.y[rows])


def draw(
    generator: torch.Generator, phase: str, steps: int, task: Batch, hyper: Hyper
) -> dict[str, Tensor]:
    """``Method.draw`` of a method that needs random numbers at the end of a task only: "order" and
    "label", uniform in [0, 1), ``(S, N)``."""
    if phase != "end_task":
        return {}
    size = steps, len(task.y)
    uniform = lambda: torch.rand(*size, generator=generator, dtype=torch.float64)  # noqa: E731
    return {"order": uniform(), "label": uniform()}
