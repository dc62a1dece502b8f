"""Networks as pure functions: ``init(generator) -> Params``, ``apply(params, x)``.

``encoder`` and ``decoder`` read and write examples, as flat vectors ``(B, D)`` whatever their shape
is: a perceptron takes them as they are, a convolutional network as images or feature maps.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map

from trainables.engine.errors import unknown
from trainables.engine.method import Params, Problem

NETWORKS = ("perceptron", "convolutional")


class Net(NamedTuple):
    init: Callable[[torch.Generator], Params]
    # (params, x) -> the last hidden layer, ``(B, H)``, or ``(B, channels, height, width)`` behind a
    # convolution. A third argument, where a network takes one, multiplies its hidden layers: a list
    # of one tensor for each.
    features: Callable[..., Tensor]
    # (params, features) -> outputs; without it the features are the outputs.
    head: Callable[[Params, Tensor], Tensor] = lambda params, features: features

    def apply(self, params: Params, x: Tensor) -> Tensor:
        return self.head(params, self.features(params, x))


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
            params[f"w{i}"] = he(generator, (a, b), a, dtype)
            params[f"b{i}"] = torch.zeros(b, dtype=dtype)
        return params

    def linear(params: Params, i: int, x: Tensor) -> Tensor:
        return torch.addmm(params[f"b{i}"], x, params[f"w{i}"])

    def features(params: Params, x: Tensor, masks: Sequence[Tensor] = ()) -> Tensor:
        x = x.flatten(1)
        for i in range(layers - 1):
            x = F.leaky_relu(linear(params, i, x), slope)
            x = x * masks[i] if masks else x
        return x

    return Net(init, features, lambda params, x: linear(params, layers - 1, x))


def he(generator: torch.Generator, shape: Sequence[int], fan_in: int, dtype: torch.dtype) -> Tensor:
    """Weights from N(0, 2/fan_in)."""
    return torch.randn(*shape, generator=generator, dtype=dtype) * (2 / fan_in) ** 0.5


def convolutional(
    shape: Sequence[int],
    channels: Sequence[int],
    outputs: int,
    *,
    condition: int = 0,
    slope: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> Net:
    """Convolutions that halve an image each, and a linear layer.

    Args:
        shape: (channels, height, width) of the images.
        channels: of each convolution (3 × 3, stride 2, a leaky rectifier behind it).
        outputs: of the linear layer.
        condition: numbers that follow an image's in the input; they enter the linear layer.

    Returns:
        ``apply`` maps ``(B, C·H·W + condition)`` to ``(B, outputs)``; ``init`` as in ``mlp``.
    """
    sizes, inputs = halved(shape[1:], len(channels)), prod(shape)
    last = mlp([channels[-1] * prod(sizes[-1]) + condition, outputs], dtype=dtype)

    def init(generator: torch.Generator) -> Params:
        params = {}
        for i, (a, b) in enumerate(pairwise([shape[0], *channels])):
            params[f"k{i}"] = he(generator, (b, a, 3, 3), 9 * a, dtype)
            params[f"c{i}"] = torch.zeros(b, dtype=dtype)
        return params | last.init(generator)

    def maps(params: Params, x: Tensor) -> Tensor:
        image = x.unflatten(1, tuple(shape))
        for i in range(len(channels)):
            image = F.leaky_relu(halve(image, params[f"k{i}"], params[f"c{i}"]), slope)
        return image

    def with_told(params: Params, x: Tensor) -> Tensor:
        seen, told = x.flatten(1).split((inputs, condition), 1)
        return torch.cat([maps(params, seen).flatten(1), told], 1)

    if condition:
        return Net(init, with_told, last.apply)
    return Net(init, lambda params, x: maps(params, x.flatten(1)), last.apply)


def deconvolutional(
    inputs: int,
    channels: Sequence[int],
    shape: Sequence[int],
    *,
    slope: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> Net:
    """The way back: a linear layer, and transposed convolutions that double an image each.

    Args:
        inputs: of the linear layer.
        channels: of the input of each transposed convolution (3 × 3, stride 2, a leaky rectifier
            before it).
        shape: (channels, height, width) of the images.

    Returns:
        ``apply`` maps ``(B, inputs)`` to ``(B, C·H·W)``; ``init`` as in ``mlp``.
    """
    sizes = halved(shape[1:], len(channels))[::-1]
    first = mlp([inputs, channels[0] * prod(sizes[0])], dtype=dtype)

    def init(generator: torch.Generator) -> Params:
        params = first.init(generator)
        for i, (a, b) in enumerate(pairwise([*channels, shape[0]])):
            # Every output sees a quarter of the nine weights of each input channel.
            params[f"k{i}"] = he(generator, (a, b, 3, 3), max(1, 9 * a // 4), dtype)
            params[f"c{i}"] = torch.zeros(b, dtype=dtype)
        return params

    def apply(params: Params, z: Tensor) -> Tensor:
        image = first.apply(params, z).unflatten(1, (channels[0], *sizes[0]))
        for i, size in enumerate(sizes[1:]):
            image = double(F.leaky_relu(image, slope), params[f"k{i}"], params[f"c{i}"], size)
        return image.flatten(1)

    return Net(init, apply)


# Convolutions are written as products of matrices: every lane has weights of its own, and
# TorchScript does not take the gradient of a convolution.
WINDOW = {"kernel_size": 3, "stride": 2, "padding": 1}


def halve(image: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """``conv2d`` of stride 2: ``(B, C, H, W)`` by ``(O, C, 3, 3)`` to ``(B, O, ⌈H/2⌉, ⌈W/2⌉)``."""
    height, width = halved(image.shape[2:], 1)[1]
    windows = F.unfold(image, **WINDOW).transpose(1, 2)  # (B, h·w, 9 C)
    rows = torch.addmm(bias, windows.flatten(0, 1), kernel.flatten(1).T)
    return rows.unflatten(0, (len(image), height * width)).mT.unflatten(2, (height, width))


def double(image: Tensor, kernel: Tensor, bias: Tensor, size: tuple[int, ...]) -> Tensor:
    """``conv_transpose2d`` of stride 2: ``(B, C, h, w)``, ``(C, O, 3, 3)`` to ``(B, O, *size)``."""
    rows = image.flatten(2).mT.flatten(0, 1) @ kernel.flatten(1)  # (B·h·w, 9 O)
    windows = rows.unflatten(0, (len(image), -1)).mT
    return F.fold(windows, size, **WINDOW) + bias[:, None, None]


def halved(size: Sequence[int], times: int) -> list[tuple[int, ...]]:
    """Height and width before the first and after each of so many strides of 2."""
    sizes = [tuple(size)]
    for _ in range(times):
        sizes.append(tuple(-(-n // 2) for n in sizes[-1]))
    return sizes


def encoder(
    network: str,
    shape: Sequence[int],
    hidden: int,
    layers: int,
    outputs: int,
    *,
    condition: int = 0,
    slope: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> Net:
    """A network that reads examples: ``(B, D + condition)`` to ``(B, outputs)``.

    Args:
        network: "perceptron", or "convolutional": ``hidden`` channels in the last of its
            convolutions, half as many in each one before.
        shape: of an example.
        hidden, layers: width and number of hidden layers.
        condition: numbers that follow an example's in the input, a class's code say.

    Raises:
        ValueError: unknown network; a convolutional one for examples that are not (C, H, W).
    """
    if is_convolutional(network, shape, layers):
        channels = [max(1, hidden >> (layers - 1 - i)) for i in range(layers)]
        return convolutional(
            shape, channels, outputs, condition=condition, slope=slope, dtype=dtype
        )
    sizes = [prod(shape) + condition, *[hidden] * layers, outputs]
    return mlp(sizes, slope=slope, dtype=dtype)


def decoder(
    network: str,
    inputs: int,
    hidden: int,
    layers: int,
    shape: Sequence[int],
    *,
    slope: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> Net:
    """A network that writes examples, ``(B, inputs)`` to ``(B, D)``; arguments as ``encoder``'s.

    Its output is not squashed: features have no fixed range.
    """
    if is_convolutional(network, shape, layers):
        channels = [max(1, hidden >> i) for i in range(layers)]
        return deconvolutional(inputs, channels, shape, slope=slope, dtype=dtype)
    return mlp([inputs, *[hidden] * layers, prod(shape)], slope=slope, dtype=dtype)


def is_convolutional(network: str, shape: Sequence[int], layers: int) -> bool:
    """Whether a network is one, and not a perceptron.

    Raises:
        ValueError: as ``encoder``.
    """
    if network not in NETWORKS:
        raise unknown("network", network, NETWORKS)
    if network == "convolutional" and (len(shape) != 3 or layers < 1):
        raise ValueError(
            "a convolutional network needs at least one hidden layer and examples of "
            f"(channels, height, width), got {layers} and {tuple(shape)}: use network='perceptron'"
        )
    return network == "convolutional"


def classifier(
    network: str, problem: Problem, shape: Sequence[int], hidden: int, layers: int
) -> Net:
    """A classifier of examples ``(B, D)``: logits ``(B, C)``.

    Where the classifier is told the classes' attributes, the weights of a class are a linear
    function of them,

        logit_k = ⟨h(x), W a_k + w⟩ + b_k

    with h the last hidden layer: classes never seen have logits too.

    Source: the attribute head of the LGM code (universome/class-norm, 2020).
    """
    dtype = problem.dtype
    if "classifier" not in problem.attributes_in or problem.attributes is None:
        return encoder(network, shape, hidden, layers, problem.classes, dtype=dtype)
    attributes = problem.attributes
    depth = layers if is_convolutional(network, shape, layers) else layers - 1
    body = encoder(network, shape, hidden, depth, hidden, dtype=dtype)

    def init(generator: torch.Generator) -> Params:
        told = attributes.shape[1]  # numbers in a vector of length 1
        head = {
            "attribute": he(generator, (told, hidden), hidden, dtype),
            "shared": torch.zeros(hidden, dtype=dtype),
            "bias": torch.zeros(problem.classes, dtype=dtype),
        }
        return body.init(generator) | head

    def features(params: Params, x: Tensor, masks: Sequence[Tensor] = ()) -> Tensor:
        below = (masks[:-1],) if masks else ()
        h = F.relu(body.head(params, body.features(params, x, *below)))
        return h * masks[-1] if masks else h

    def head(params: Params, h: Tensor) -> Tensor:
        weights = attributes @ params["attribute"] + params["shared"]  # (C, hidden)
        return torch.addmm(params["bias"], h, weights.T)

    return Net(init, features, head)


def choose(condition: Tensor, yes, no):
    """The tree ``yes`` where a 0-dim condition holds, else ``no``."""
    return tree_map(lambda a, b: torch.where(condition, a, b), yes, no)
