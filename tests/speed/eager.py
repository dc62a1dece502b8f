"""LGM-AC-GAN in ordinary eager PyTorch, one trial at a time: what fused trials are timed against.

Modules, ``torch.autograd`` and ``torch.optim.Adam``. The equations (1) to (8) and the
hyperparameters are those of ``trainables/lgm_acgan.py``, class-incremental, in float32. Differs in
its random numbers only: labels of replayed examples are drawn independently here, there they are
balanced over the classes.
"""

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables import lgm_acgan
from trainables.benchmarks import Stream
from trainables.engine.method import Problem, configure
from trainables.lgm_acgan import Hyper, Shape


def walk(config: dict[str, Any], seed: int, stream: Stream) -> Iterator[list[float]]:
    """Learn a stream task by task.

    Args:
        config: a flat configuration; what it leaves out keeps the method's default.
        seed: of ``torch.manual_seed``.
        stream: class-incremental.

    Yields:
        After each task the validation accuracies on the tasks so far, among the classes seen.
    """
    torch.manual_seed(seed)
    shape, hyper = configure(lgm_acgan, config)
    learner = Learner(stream.problem, shape, hyper)
    for t in range(len(stream.tasks)):
        learner.begin_task(stream, t)
        for phase, steps in lgm_acgan.schedule(hyper, t):
            step = getattr(learner, f"{phase}_step")
            for _ in range(steps):
                step()
        splits = [task.validation for task in stream.tasks[: t + 1]]
        yield [learner.accuracy(split.x, split.y) for split in splits]


class Learner:
    """The three players, their optimizers and the task being learned."""

    def __init__(self, problem: Problem, shape: Shape, hyper: Hyper):
        self.problem, self.shape, self.hyper = problem, shape, hyper
        self.generator, self.critic, self.classifier = networks(problem, shape)

    def begin_task(self, stream: Stream, t: int) -> None:
        task = stream.batch(t)
        self.x, self.y = task.x.flatten(1), task.y
        self.current, self.learned, self.seen = (
            mask.nonzero()[:, 0] for mask in (task.current, task.learned, task.seen)
        )
        _, critic, classifier = networks(self.problem, self.shape)
        if self.hyper.reset_critic:
            self.critic = critic
        if self.hyper.reset_classifier:
            self.classifier = classifier
        self.frozen = copy.deepcopy(self.generator)
        self.prototypes, _ = class_means(self.x, self.y, self.problem.classes)
        self.targets = smoothed(self.seen, self.problem.classes, self.hyper.label_smoothing)
        self.optimizers = {
            player: torch.optim.Adam(
                getattr(self, player).parameters(),
                lr=getattr(self.hyper, f"{player}_lr"),
                betas=(
                    getattr(self.hyper, f"{player}_beta1"),
                    getattr(self.hyper, f"{player}_beta2"),
                ),
            )
            for player in ("generator", "critic", "classifier")
        }

    def critic_step(self) -> None:
        x, y = self.minibatch()
        with torch.no_grad():
            fake = self.generator(self.code(y))
        on_real, on_fake = self.critic(torch.cat([x, fake])).chunk(2)
        adversarial = on_fake[:, 0].mean() - on_real[:, 0].mean()
        classification = cross_entropy(on_real[:, 1:], y, self.current)
        penalty = gradient_penalty(self.critic, x, fake)
        self.update(
            "critic",
            self.hyper.critic_adversarial * adversarial
            + self.hyper.critic_classification * classification
            + self.hyper.gradient_penalty * penalty,
        )

    def generator_step(self) -> None:
        _, y = self.minibatch()
        code, y_old = self.code(y), self.labels(self.learned)
        code_old = self.code(y_old)
        fake, replayed = self.generator(torch.cat([code, code_old])).split([len(y), len(y_old)])
        out = self.critic(fake)
        classification = cross_entropy(out[:, 1:], y, self.current)
        loss = -self.hyper.generator_adversarial * out[:, 0].mean()
        loss = loss + self.hyper.generator_classification * classification
        if self.hyper.use_prototypes:
            means, present = class_means(fake, y, self.problem.classes)
            distance = F.mse_loss(means[present], self.prototypes[present])
            loss = loss + self.hyper.generator_prototype * distance
        if len(y_old):
            with torch.no_grad():
                before = self.frozen(code_old)
            loss = loss + self.hyper.generator_rehearsal * F.mse_loss(replayed, before)
        self.update("generator", loss)

    def classifier_step(self) -> None:
        x, y = self.minibatch()
        seen = self.hyper.replay_seen and self.hyper.order != "classifier_first"
        y_old = self.labels(self.seen if seen and len(self.learned) else self.learned)
        with torch.no_grad():
            replayed = self.generator(self.code(y_old))
        out = self.classifier(torch.cat([x, replayed]))
        on_real, on_replay = out.split([len(y), len(y_old)])
        loss = F.cross_entropy(on_real[:, self.seen], self.targets[y])
        if len(y_old):
            replay = F.cross_entropy(on_replay[:, self.seen], self.targets[y_old])
            loss = loss + self.hyper.classifier_rehearsal * replay
        self.update("classifier", loss)

    def minibatch(self) -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(self.y), (self.shape.batch_size,))
        return self.x[rows], self.y[rows]

    def labels(self, classes: Tensor) -> Tensor:
        """Labels of a replayed batch, none where there is no class to replay."""
        size = self.shape.replay_batch_size if len(classes) else 0
        return classes[torch.randint(max(len(classes), 1), (size,))]

    def code(self, y: Tensor) -> Tensor:
        """What the generator reads, [z | one-hot y]."""
        z = torch.randn(len(y), self.shape.latent)
        return torch.cat([z, F.one_hot(y, self.problem.classes).float()], 1)

    def update(self, player: str, loss: Tensor) -> None:
        """Step one player; gradients of the others are not computed."""
        self.optimizers[player].zero_grad()
        loss.backward(inputs=list(getattr(self, player).parameters()))
        self.optimizers[player].step()

    @torch.no_grad()
    def accuracy(self, x: Tensor, y: Tensor) -> float:
        answers = self.seen[self.classifier(x.flatten(1))[:, self.seen].argmax(1)]
        return (answers == y).float().mean().item()


def networks(problem: Problem, shape: Shape) -> tuple[nn.Module, nn.Module, nn.Module]:
    """G: [z | one-hot y] -> x, D and d: x -> (1 + C), c: x -> C."""
    inputs, classes = torch.Size(problem.input_shape).numel(), problem.classes
    generator = [shape.generator_hidden] * shape.generator_layers
    critic = [shape.critic_hidden] * shape.critic_layers
    classifier = [shape.classifier_hidden] * shape.classifier_layers
    return (
        perceptron([shape.latent + classes, *generator, inputs], nn.LeakyReLU(0.01)),
        perceptron([inputs, *critic, 1 + classes], nn.ReLU()),
        perceptron([inputs, *classifier, classes], nn.ReLU()),
    )


def perceptron(sizes: list[int], activation: nn.Module) -> nn.Sequential:
    """Weights from N(0, 2/fan_in) (He et al. 2015), biases zero."""
    layers = []
    for a, b in pairwise(sizes):
        linear = nn.Linear(a, b)
        nn.init.kaiming_normal_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, activation]
    return nn.Sequential(*layers[:-1])


def cross_entropy(logits: Tensor, y: Tensor, classes: Tensor) -> Tensor:
    """Among the given classes, sorted, only."""
    return F.cross_entropy(logits[:, classes], torch.searchsorted(classes, y))


def smoothed(classes: Tensor, outputs: int, smoothing: float) -> Tensor:
    """``(outputs, n)`` targets over the given n classes: 1−s for the true one, s for the others."""
    true = torch.eye(outputs)[:, classes]
    return (1 - smoothing) * true + smoothing * (1 - true) / max(len(classes) - 1, 1)


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Gulrajani et al., NeurIPS 2017, https://arxiv.org/abs/1704.00028."""
    between = torch.lerp(real, fake, torch.rand(len(real), 1)).requires_grad_()
    value = critic(between)[:, 0].sum()
    (slope,) = torch.autograd.grad(value, between, create_graph=True)
    return (slope.norm(dim=1) - 1).square().mean()


def class_means(x: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Mean example of every class ``(C, D)``, and which classes there are ``(C,)``."""
    counts = torch.bincount(y, minlength=classes)
    sums = torch.zeros(classes, x.shape[1]).index_add(0, y, x)
    return sums / counts.clamp_min(1)[:, None], counts > 0
