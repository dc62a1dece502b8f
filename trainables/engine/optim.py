"""First-order updates as pure functions.

Parameters stay dicts of tensors, as methods read them; an update works on one flat vector, because
a dozen operations on one tensor cost a tenth of a dozen operations on each of ten tensors.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from trainables.engine.method import Params, Scalar


class Moments(NamedTuple):
    """What an optimiser remembers of past gradients, P numbers in all."""

    first: Tensor  # (P,)
    second: Tensor  # (P,)
    step: Tensor  # () float, updates made so far


def moments(params: Params) -> Moments:
    """The state of an optimiser that has seen nothing."""
    flat = flatten(params)
    return Moments(torch.zeros_like(flat), torch.zeros_like(flat), flat.new_zeros(()))


def flatten(params: Params) -> Tensor:
    """All parameters as one vector ``(P,)``."""
    return torch.cat([p.reshape(-1) for p in params.values()])


def unflatten(flat: Tensor, like: Params) -> Params:
    """The inverse of ``flatten``; names and shapes are taken from ``like``."""
    pieces = flat.split([p.numel() for p in like.values()])
    return {k: v.reshape(p.shape) for (k, p), v in zip(like.items(), pieces, strict=True)}


def adam(
    params: Params,
    grads: Params,
    past: Moments,
    lr: Scalar,
    beta1: Scalar = 0.9,
    beta2: Scalar = 0.999,
    eps: float = 1e-8,
) -> tuple[Params, Moments]:
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


def sgd(
    params: Params, grads: Params, past: Moments, lr: Scalar, momentum: Scalar = 0.0
) -> tuple[Params, Moments]:
    """One step of heavy-ball gradient descent: v ← m v + g, p ← p − lr v, as ``torch.optim.SGD``.

    ``past.first`` holds v; ``past.second`` is not used.
    """
    velocity = momentum * past.first + flatten(grads)
    flat = flatten(params) - lr * velocity
    return unflatten(flat, params), Moments(velocity, past.second, past.step + 1)
