"""Latent generative memory with a GAN: what its variants share, whatever their critic is.

Players on features x: a generator G(z, y), a critic D and a classifier c; Ḡ is G as it was when
the task began. A variant brings the losses of G and D. Here are the players' states, their turns,
their random numbers, and the loss of c, which rehearses what G replays.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from trainables.engine import noise as draws
from trainables.engine.losses import (
    alignment,
    class_means,
    confidence,
    rehearsed_cross_entropy,
)
from trainables.engine.method import Batch, Hyper, Method, Params, Problem, Shape
from trainables.engine.nets import Net, choose
from trainables.engine.optim import Moments, adam_step, moments
from trainables.engine.schedule import program

HALLUCINATED = (0.2, 0.8)  # how much of one class there is in a hallucinated one


class State(NamedTuple):
    generator: Params  # G
    critic: Params  # D
    classifier: Params  # c
    frozen: Params  # Ḡ
    prototypes: Tensor  # (C, D) mean examples of the current task's classes; zero elsewhere
    generator_moments: Moments
    critic_moments: Moments
    classifier_moments: Moments


class Nets(NamedTuple):
    generator: Net  # [z | code] -> x
    critic: Net
    classifier: Net  # x -> C
    codes: Tensor  # (C, K), of the classes


# (a player's parameters, state, batch, hyper, noise, nets) -> sum of its weighted terms, and these
Loss = Callable[..., tuple[Tensor, dict[str, Tensor]]]


def generate(nets: Nets, params: Params, z: Tensor, y: Tensor) -> Tensor:
    """G(z, y), ``(B, D)``."""
    return generate_code(nets, params, z, nets.codes[y])


def generate_code(nets: Nets, params: Params, z: Tensor, code: Tensor) -> Tensor:
    """G(z, ·) for any code ``(B, K)``, one between two classes say."""
    return nets.generator.apply(params, torch.cat([z, code], -1))


def generate_both(nets: Nets, params: Params, batch: Batch, noise) -> tuple[Tensor, Tensor]:
    """What G makes of the batch's labels and of those to rehearse, in one pass."""
    z, y = torch.cat([noise["z"], noise["z_old"]]), torch.cat([batch.y, noise["y_old"]])
    fake, replayed = generate(nets, params, z, y).split((len(batch.y), len(noise["y_old"])))
    return fake, replayed


def rehearsal(replayed: Tensor, frozen: Params, batch: Batch, noise, nets: Nets) -> Tensor:
    """E_{y~L} mean_d (G(z,y) − Ḡ(z,y))², zero in the first task.

    Args:
        replayed: G of the same noise and labels as Ḡ's.
    """
    before = generate(nets, frozen, noise["z_old"], noise["y_old"])
    return alignment(replayed, before, batch.learned)


def hallucinated(nets: Nets, params: Params, noise) -> tuple[Tensor, Tensor]:
    """Examples of classes that do not exist, between two that were seen, and their codes.

        G(z, a),   a = α a_i + (1 − α) a_j, of length 1,   α ~ U(0.2, 0.8)

    Source: CIZSL, Elhoseiny & Elfeki, ICCV 2019, https://arxiv.org/abs/1904.01109. i ≠ j here; in
    their code both are drawn by themselves.
    """
    codes, alpha = nets.codes, noise["alpha"]
    low, high = HALLUCINATED
    alpha = low + (high - low) * alpha
    mixed = alpha * codes[noise["one"]] + (1 - alpha) * codes[noise["other"]]
    code = mixed / mixed.norm(dim=-1, keepdim=True)
    return generate_code(nets, params, noise["z_new"], code), code


def creativity(
    value: Callable[[Tensor, Tensor], Tensor],
    params: Params,
    state: State,
    batch: Batch,
    hyper: Hyper,
    noise,
    nets: Nets,
) -> dict[str, Tensor]:
    """The terms of hallucinated classes: real to the critic, and like no class that was seen.

        creativity_adversarial   − E D(x̂)
        creativity_entropy       E KL( c(x̂) ‖ U ),  over the classes seen

    Args:
        value: D, (x ``(B, D)``, codes ``(B, K)``) to ``(B,)``.

    Returns:
        Both terms, zero unless ``hyper.use_creativity``; none where no class is hallucinated, since
        the generator is told no attributes.
    """
    if "alpha" not in noise:
        return {}
    x, code = hallucinated(nets, params, noise)
    used = hyper.use_creativity > 0
    surprise = confidence(nets.classifier.apply(state.classifier, x), batch.seen)
    return {
        "creativity_adversarial": -value(x, code).mean() * used,
        "creativity_entropy": surprise * used,
    }


def classifier_loss(params: Params, state: State, batch: Batch, hyper: Hyper, noise, nets: Nets):
    """CE(c(x), y) + w E_{y~S or L} CE(c(G(z,y)), y), the latter zero in the first task."""
    y = noise["y_replay"]
    return rehearsed_cross_entropy(
        lambda x: nets.classifier.apply(params, x), batch,
        generate(nets, state.generator, noise["z_replay"], y), y,
        hyper.classifier_rehearsal, hyper.label_smoothing,
    )  # fmt: skip


def build(
    problem: Problem, shape: Shape, nets: Nets, critic_loss: Loss, generator_loss: Loss
) -> Method:
    """A variant of LGM from its networks and the losses of its two GAN players.

    ``shape`` has ``latent``, ``batch_size`` and ``replay_batch_size``.
    """

    def init(generator):
        g, d, c = (net.init(generator) for net in (nets.generator, nets.critic, nets.classifier))
        prototypes = torch.zeros(problem.classes, *problem.input_shape, dtype=problem.dtype)
        return State(g, d, c, g, prototypes.flatten(1), moments(g), moments(d), moments(c))

    def begin_task(state, fresh, task, hyper):
        return State(
            generator=state.generator,
            critic=choose(hyper.reset_critic > 0, fresh.critic, state.critic),
            classifier=choose(hyper.reset_classifier > 0, fresh.classifier, state.classifier),
            frozen=state.generator,
            prototypes=class_means(task.x, task.y, problem.classes)[0],
            generator_moments=fresh.generator_moments,
            critic_moments=fresh.critic_moments,
            classifier_moments=fresh.classifier_moments,
        )

    def sample(state, y, z):
        return generate(nets, state.generator, z, y).unflatten(-1, problem.input_shape)

    losses = {"critic": critic_loss, "generator": generator_loss, "classifier": classifier_loss}
    return Method(
        init=init,
        schedule=schedule,
        steps={
            player: adam_step(player, partial(loss, nets=nets)) for player, loss in losses.items()
        },
        predict=lambda state, x: nets.classifier.apply(state.classifier, x.flatten(1)),
        begin_task=begin_task,
        draw=partial(draw, shape=shape, problem=problem),
        sample=sample,
        latent=shape.latent,
        classifier_loss=partial(classifier_loss, nets=nets),
        carried=lambda state: (state.generator, state.critic, state.classifier),
        batch_size=shape.batch_size,
    )


def draw(
    generator: torch.Generator,
    phase: str,
    steps: int,
    task: Batch,
    hyper: Hyper,
    *,
    shape: Shape,
    problem: Problem,
) -> Mapping[str, Tensor]:
    """``Method.draw``: noise, labels to rehearse, and classes to hallucinate where there are two.

    "Seen" classes are replayed to the classifier only by a generator that has met them:
    classifier-first tasks replay learned ones.
    """
    real, replayed = shape.batch_size, shape.replay_batch_size
    z = lambda size: draws.normal(generator, steps, size, shape.latent, dtype=problem.dtype)  # noqa: E731
    uniform = lambda: draws.uniform(generator, steps, real, 1, dtype=problem.dtype)  # noqa: E731
    if phase == "critic":
        return {"mix": uniform(), "z_critic": z(real)}
    if phase == "generator":
        y_old = draws.labels(generator, draws.rehearsed(task), steps, replayed)
        noise = {"z": z(real), "z_old": z(replayed), "y_old": y_old}
        if "generator" in problem.attributes_in:
            one, other = draws.pairs(generator, task.seen, steps, real)
            noise |= {"z_new": z(real), "alpha": uniform(), "one": one, "other": other}
        return noise
    if phase == "classifier":
        seen = hyper.replay_seen and hyper.order != "classifier_first"
        among = draws.rehearsed(task, seen)
        y_replay = draws.labels(generator, among, steps, replayed)
        return {"z_replay": z(replayed), "y_replay": y_replay}
    return {}


def schedule(hyper: Hyper, t: int) -> list[tuple[str, int]]:
    """The steps of a task in the order that ``hyper.order`` names.

    Every n-th step of the critic is followed by one of the generator. Interleaved tasks take a
    critic's (and a generator's) and a classifier's step in turn, then what is left over.

    Raises:
        ValueError: for an unknown order.
    """
    n = int(hyper.critic_steps)
    gan = [
        ("critic", "generator") if i % n == 0 else ("critic",)
        for i in range(1, int(hyper.gan_steps) + 1)
    ]
    classifier = [("classifier",)] * int(hyper.classifier_steps)
    return program(hyper.order, {"gan": gan, "classifier": classifier})
