"""Networks as pairs of pure functions: ``init(generator) -> Params``, ``apply(params, x)``."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map

from trainables.engine.method import Params


class Net(NamedTuple):
    init: Callable[[torch.Generator], Params]
    apply: Callable[[Params, Tensor], Tensor]


def mlp(sizes: Sequence[int], *, slope: float = 0.0, dtype: torch.dtype = torch.float32) -> Net:
    """A perceptron with leaky rectifiers between its linear layers.

    Args:
        sizes: widths from the input to the output, at least two.
        slope: of the rectifier on negative inputs; 0 is a plain ReLU.
        dtype: of the parameters.

    Returns:
        ``init`` draws weights from N(0, 2/fan_in) and sets biases to zero; ``apply`` maps
        ``(B, ...)`` to ``(B, sizes[-1])``, flattening everything after the first axis.

    Source: initialisation of He et al., ICCV 2015, https://arxiv.org/abs/1502.01852.
    """
    layers = len(sizes) - 1

    def init(generator: torch.Generator) -> Params:
        params = {}
        for i, (a, b) in enumerate(pairwise(sizes)):
            weight = torch.randn(a, b, generator=generator, dtype=dtype)
            params[f"w{i}"] = weight * (2 / a) ** 0.5
            params[f"b{i}"] = torch.zeros(b, dtype=dtype)
        return params

    def apply(params: Params, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for i in range(layers):
            x = torch.addmm(params[f"b{i}"], x, params[f"w{i}"])
            if i < layers - 1:
                x = F.leaky_relu(x, slope)
        return x

    return Net(init, apply)


def choose(condition: Tensor, yes, no):
    """The tree ``yes`` where a 0-dim condition holds, else ``no``."""
    return tree_map(lambda a, b: torch.where(condition, a, b), yes, no)


def one_hot(y: Tensor, classes: int, like: Tensor) -> Tensor:
    """``(B,)`` labels as ``(B, classes)`` codes, of another tensor's type and device."""
    return torch.eye(classes, dtype=like.dtype, device=like.device)[y]
