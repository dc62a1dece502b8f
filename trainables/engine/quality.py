"""How good a generator is, and how well an autoencoder reconstructs: measured on real examples.

A measure is a row like those of the accuracy matrix: entry ``j`` is of task ``j``, for the tasks
learned so far. Nothing here changes a state, and every random number comes from a generator that is
given.

Shape letters: B batch, C classes, D input, N examples of a task, S steps, Z latent.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainables.engine import noise
from trainables.engine.losses import cross_entropy
from trainables.engine.method import Method, State
from trainables.engine.nets import encoder
from trainables.engine.optim import adam, flatten, moments, unflatten
from trainables.engine.packs import hits

Split = Any  # x (N, *input) and y (N,) of one task

Make = Callable[[Tensor, torch.Generator], Tensor]  # labels (B,) -> generated x (B, *input)


class Judge(NamedTuple):
    """The classifier of the CAS, and how long it is trained."""

    network: str  # as in ``nets.encoder``
    hidden: int
    layers: int
    rate: float  # of Adam
    epochs: int  # as many samples as this times the training examples of the classes seen


# What they reach on real data, on examples that they were not trained on (one run, a core): the
# perceptron 97.2 % on split_digits (192 steps, 0.2 s) and 78 % on cub100 (448 steps, 1 s), 96.0 %
# on split_mnist (1024 steps, 3 s); the convolutions 97.4 % on split_mnist (1024 steps, 6 s).
OF_FEATURES = Judge("perceptron", 256, 1, 1e-3, 24)
OF_IMAGES = Judge("convolutional", 16, 2, 1e-2, 3)
IMAGE = 16  # pixels a side of an image that is worth convolving
BATCH = 128
STEPS, MOST = 192, 1024  # at least and at most; multiples of noise.BLOCK
SCORES = ("cas", "explained_variance")  # the measures of which higher is better
QUERIES = 100  # a class, whose nearest neighbours are looked for
POOL = 5000  # training examples a class that they are looked for among


def measure(
    method: Method,
    state: State,
    train: Sequence[Split],
    held_out: Sequence[Split],
    seen: Tensor,
    rivals: Tensor,
    seed: int,
    device: torch.device | str = "cpu",
) -> dict[str, list[float]]:
    """All measures that a method allows, of its state after task i.

    Args:
        method: "cas" and "nearest_distance" need its ``sample``, "reconstruction_error" and
            "explained_variance" its ``reconstruct``; a method without both gives nothing.
        state: after task i, on ``device``.
        train: training data of the tasks 0..i.
        held_out: validation or test data of the same tasks.
        seen: ``(C,)`` bool, the classes of these tasks.
        rivals: ``(C, C)`` bool, which logits compete (``Batch.rivals``).
        seed: of the trial; what is drawn depends on it and on i alone.
        device: where the state is.

    Returns:
        Measure -> i + 1 numbers.
    """
    task, measures = len(held_out) - 1, {}
    if method.features is not None:  # generated are features of an embedder inside the method
        train, held_out = (
            [type(part)(method.features(state, part.x.to(device)), part.y) for part in parts]
            for parts in (train, held_out)
        )
    if method.sample is not None:
        make = maker(method, state, held_out[0].x.dtype, device)
        own = noise.generator(seed, "cas", task)
        steps = steps_for(sum(len(part.y) for part in train), judge_of(train[0].x.shape[1:]))
        measures["cas"] = classification_accuracy_score(
            make, held_out, seen, rivals.to(device), own, steps
        )
        own = noise.generator(seed, "nearest distance", task)
        measures["nearest_distance"] = nearest_distance(make, train, held_out, seen, own)
    if method.reconstruct is not None:
        reconstruct = method.reconstruct
        errors = reconstruction_error(lambda x: reconstruct(state, x.to(device)), held_out)
        measures["reconstruction_error"] = errors
        measures["explained_variance"] = explained_variance(errors, held_out)
    return measures


def summary(measures: Mapping[str, Sequence[float]], held_out: Sequence[Split]) -> dict[str, float]:
    """The scores among the measures, over all tasks seen: means in which every example counts once.

    Args:
        measures: of ``measure``.
        held_out: the same that it was given.

    Returns:
        Those of ``SCORES`` that there is a measure for.
    """
    return {name: by_examples(measures[name], held_out) for name in SCORES if name in measures}


def maker(method: Method, state: State, dtype: torch.dtype, device: torch.device | str) -> Make:
    """A state's generator; draws its z on the CPU, so that it makes the same on every device."""
    sample = method.sample
    assert sample is not None

    @torch.no_grad()
    def make(y: Tensor, generator: torch.Generator) -> Tensor:
        z = torch.randn(len(y), method.latent, generator=generator, dtype=dtype)
        return sample(state, y.to(device), z.to(device))

    return make


def judge_of(shape: Sequence[int]) -> Judge:
    """The classifier of the CAS for examples of this shape."""
    return OF_IMAGES if len(shape) == 3 and min(shape[1:]) >= IMAGE else OF_FEATURES


def steps_for(examples: int, judge: Judge) -> int:
    """Steps of the CAS's classifier for so many training examples of the classes seen."""
    steps = judge.epochs * examples // BATCH // noise.BLOCK * noise.BLOCK
    return min(max(steps, STEPS), MOST)


def classification_accuracy_score(
    make: Make,
    held_out: Sequence[Split],
    seen: Tensor,
    rivals: Tensor,
    generator: torch.Generator,
    steps: int = STEPS,
) -> list[float]:
    """CAS: accuracy on real examples of a classifier that was trained on generated ones only.

    A classifier (``judge_of``: a perceptron of one hidden layer, or two convolutions for images) is
    trained from scratch for some steps of Adam, each on ``BATCH`` new samples, balanced over the
    classes seen. It is good only if samples are of their class and as diverse as the class is.

    Args:
        make: the generator.
        held_out: real examples of each task, which the generator has not seen.
        seen: ``(C,)`` bool, classes to generate.
        rivals: ``(C, C)`` bool, which logits compete, in training and in evaluation; on the device
            to train on.
        generator: of labels, noise and initial weights, on the CPU.
        steps: a multiple of ``noise.BLOCK``.

    Returns:
        Accuracy on each task, fractions in [0, 1]. Higher is better; a generator that draws from
        the training data reaches what this classifier reaches on that data.

    Source:
        Ravuri & Vinyals, "Classification Accuracy Score", NeurIPS 2019,
        https://arxiv.org/abs/1905.10887. There a ResNet-50 on ImageNet. The LGM reports have a
        small perceptron for features, 100 to 1000 steps of 256 or 512 (here of 128), and a
        ResNet-18 for images, 1000 steps of 128.
    """
    first, device = held_out[0].x, rivals.device
    judge = judge_of(first.shape[1:])
    kind = judge.network, first.shape[1:], judge.hidden, judge.layers
    net = encoder(*kind, len(seen), dtype=first.dtype)
    like = {name: leaf.to(device) for name, leaf in net.init(generator).items()}
    weights, past = flatten(like), moments(like)
    for _ in range(steps // noise.BLOCK):
        labels = noise.labels(generator, seen, noise.BLOCK, BATCH)  # (S, B)
        samples = make(labels.flatten(), generator).unflatten(0, labels.shape)
        for x, y in zip(samples, labels.to(device), strict=True):
            weights.requires_grad_()
            loss = cross_entropy(net.apply(unflatten(weights, like), x), y, rivals[y])
            (slope,) = torch.autograd.grad(loss, weights)
            weights, past = adam(weights.detach(), slope, past, judge.rate)
    row = []
    for split in held_out:
        x, y = split.x.to(device), split.y.to(device)
        logits = net.apply(unflatten(weights, like), x)
        row.append(int(hits(logits, y, rivals)) / len(y))
    return row


def nearest_distance(
    make: Make,
    train: Sequence[Split],
    held_out: Sequence[Split],
    seen: Tensor,
    generator: torch.Generator,
) -> list[float]:
    """How far samples are from the training data, in units of how far real new examples are.

        mean_x̂ min_x |x̂ − x|  /  mean_x' min_x |x' − x|

    with x̂ generated, x training and x' held-out examples of the same class, Euclidean distances.
    At most ``QUERIES`` x̂ and x' and ``POOL`` x of each class are looked at.

    Args:
        make: the generator.
        train: real training examples of each task.
        held_out: other real examples of each task.
        seen: ``(C,)`` bool, classes to generate.
        generator: of noise and of the choice of examples, on the CPU.

    Returns:
        The ratio for the classes of each task, >= 0: about 1 where samples are as new as real
        examples, near 0 where they are copies, far above 1 where they are unlike the data.

    Source:
        Ours; the search for nearest neighbours as a check of copying is common to work on GANs.
    """
    made: list[list[Tensor]] = [[] for _ in held_out]
    real: list[list[Tensor]] = [[] for _ in held_out]
    for c in seen.nonzero()[:, 0].tolist():
        x = make(torch.full((QUERIES,), c), generator)
        pool = some(torch.cat([split.x[split.y == c] for split in train]), POOL, generator)
        far = distance(x, pool)
        for j, split in enumerate(held_out):
            own = split.x[split.y == c]
            if len(own):
                made[j].append(far)
                real[j].append(distance(some(own, QUERIES, generator).to(x.device), pool))
    pairs = zip(made, real, strict=True)
    return [float(torch.stack(a).mean() / torch.stack(b).mean()) for a, b in pairs]


def distance(x: Tensor, pool: Tensor) -> Tensor:
    """Mean distance of ``x`` (B, *input) to the nearest of ``pool`` (N, *input)."""
    return torch.cdist(x.flatten(1), pool.to(x.device).flatten(1)).amin(-1).mean()


def some(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """At most ``count`` rows, chosen at random."""
    return x[torch.randperm(len(x), generator=generator)[:count]]


@torch.no_grad()
def reconstruction_error(
    reconstruct: Callable[[Tensor], Tensor], held_out: Sequence[Split]
) -> list[float]:
    """Mean squared error of the reconstructions of each task's examples, over N and D.

    Args:
        reconstruct: x ``(N, *input)`` -> x̂ of the same shape.
        held_out: real examples of each task.

    Returns:
        Errors >= 0, in squared units of the input. Lower is better.
    """
    return [float((reconstruct(x) - x).square().mean()) for x in (split.x for split in held_out)]


def explained_variance(errors: Sequence[float], held_out: Sequence[Split]) -> list[float]:
    """Share of the variance of real examples that reconstructions keep.

        1 − MSE_j / mean_d Var(x_d)

    with MSE_j over the examples of task j, the variance over those of all tasks, around their
    common mean.

    Args:
        errors: mean squared error of each task.
        held_out: real examples of each task.

    Returns:
        Numbers <= 1. Higher is better; in their mean over all examples, 0 is what the mean of these
        would reach.
    """
    variance = float(torch.cat([split.x for split in held_out]).var(0, correction=0).mean())
    return [1 - error / variance for error in errors]


def by_examples(row: Sequence[float], splits: Sequence[Split]) -> float:
    """The mean of a row in which every example counts once."""
    return float(np.average(row, weights=[len(split.y) for split in splits]))
