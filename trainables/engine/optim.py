"""First-order updates as pure functions.

Parameters stay trees of tensors, as methods read them; an update works on one flat vector, because
a dozen operations on one tensor cost a tenth of a dozen operations on each of ten tensors.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import grad
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from trainables.engine.method import Hyper, Scalar, State

Tree = Any  # of tensors: the parameters of a network, or of several


class Moments(NamedTuple):
    """What an optimiser remembers of past gradients, P numbers in all."""

    first: Tensor  # (P,)
    second: Tensor  # (P,)
    step: Tensor  # () float, updates made so far


def moments(params: Tree) -> Moments:
    """The state of an optimiser that has seen nothing."""
    flat = flatten(params)
    return Moments(torch.zeros_like(flat), torch.zeros_like(flat), flat.new_zeros(()))


def flatten(params: Tree) -> Tensor:
    """All parameters as one vector ``(P,)``."""
    return torch.cat([p.reshape(-1) for p in tree_leaves(params)])


def unflatten(flat: Tensor, like: Tree) -> Tree:
    """The inverse of ``flatten``; structure and shapes are taken from ``like``."""
    leaves, structure = tree_flatten(like)
    pieces = flat.split([p.numel() for p in leaves])
    pairs = zip(leaves, pieces, strict=True)
    return tree_unflatten([v.reshape(p.shape) for p, v in pairs], structure)


def adam(
    params: Tree,
    grads: Tree,
    past: Moments,
    lr: Scalar,
    beta1: Scalar = 0.9,
    beta2: Scalar = 0.999,
    eps: float = 1e-8,
) -> tuple[Tree, Moments]:
    """One step of Adam.

    Source: Kingma & Ba, ICLR 2015, https://arxiv.org/abs/1412.6980, algorithm 1.
    """
    g, step = flatten(grads), past.step + 1
    first = torch.lerp(g, past.first, beta1)
    second = torch.lerp(g * g, past.second, beta2)
    unbias = (1 - beta2**step) ** 0.5  # taken out of the root, to work on fewer large tensors
    rate = lr * unbias / (1 - beta1**step)
    flat = torch.addcdiv(flatten(params), -rate * first, second.sqrt() + eps * unbias)
    return unflatten(flat, params), Moments(first, second, step)


def adam_on(state: State, player: str, grads: Tree, hyper: Hyper) -> State:
    """One step of Adam on one player of a method that has several.

    Args:
        state: with the parameters in the field ``player`` and what their optimiser remembers in
            ``<player>_moments``.
        player: "critic", "classifier", ...
        grads: of its loss.
        hyper: with ``<player>_lr``, ``<player>_beta1`` and ``<player>_beta2``.
    """
    rates = (getattr(hyper, f"{player}_{name}") for name in ("lr", "beta1", "beta2"))
    params, past = adam(getattr(state, player), grads, getattr(state, f"{player}_moments"), *rates)
    return state._replace(**{player: params, f"{player}_moments": past})


def adam_step(player: str, loss: Callable) -> Callable:
    """A step of a method (``Method.steps``) that moves one player.

    Args:
        player: as for ``adam_on``.
        loss: (the player's parameters, state, batch, hyper, noise) -> the loss, and its terms.
    """

    def step(state, batch, hyper, noise):
        grads, terms = grad(loss, has_aux=True)(getattr(state, player), state, batch, hyper, noise)
        return adam_on(state, player, grads, hyper), terms

    return step


def sgd(
    params: Tree, grads: Tree, past: Moments, lr: Scalar, momentum: Scalar = 0.0
) -> tuple[Tree, Moments]:
    """One step of heavy-ball gradient descent: v ← m v + g, p ← p − lr v, as ``torch.optim.SGD``.

    ``past.first`` holds v; ``past.second`` is not used.
    """
    velocity = momentum * past.first + flatten(grads)
    flat = flatten(params) - lr * velocity
    return unflatten(flat, params), Moments(velocity, past.second, past.step + 1)


# (parameters, gradients, past, lr, β1 or momentum) -> parameters, past: for methods with a choice.
Update = Callable[[Tree, Tree, Moments, Scalar, Scalar], tuple[Tree, Moments]]
UPDATES: dict[str, Update] = {"adam": adam, "sgd": sgd}
