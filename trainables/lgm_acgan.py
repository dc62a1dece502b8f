"""Latent generative memory with an AC-GAN (LGM-AC-GAN): replay features from a frozen generator.

Three players on the features x of a fixed embedder: a generator G(z, y), a critic D with an
auxiliary class head d, and a classifier c. Ḡ is G as it was when the task began; S and L are the
classes seen (this task's included) and learned (earlier tasks'). A task has adversarial steps,

    critic      − w3 E D(x) + w3 E D(G(z,y))                   critic adversarial        (1)
                + w4 CE(d(x), y)                               critic classification     (2)
                + w5 E (‖∇D(x̂)‖ − 1)²                          gradient penalty          (3)
    generator   − w1 E D(G(z,y))                               generator adversarial     (4)
                + w2 CE(d(G(z,y)), y)                          generator classification  (5)
                + w6 mean_{k∈y} mean_d (E_z G(z,k) − x̄_k)²      generator prototype       (6)
                + w7 E_{y~L} mean_d (G(z,y) − Ḡ(z,y))²          generator rehearsal       (7)

every n-th of which moves the generator, and classifier steps,

    classifier  CE(c(x), y) + w8 E_{y~S or L} CE(c(G(z,y)), y)  classifier rehearsal      (8)

with CE over this task's classes in (2) and (5), over all that compete (seen, in the
class-incremental scenario) in the classifier's. x̄_k is the mean training example of class k.

Source: I. Skorokhodov's LGM code and slides of 2019-2020 (universome/class-norm, commits 202e7f7 to
b169e17); no paper. (2, 5) Odena et al. 2017, (3) Gulrajani et al. 2017, (7) MeRGAN, Wu et al. 2018.
Differs from the source:
- d is a second head of the critic, trained with it from the first step. The source took (5) from c,
  which is untrained when the adversarial steps come first.
- (7) is a mean over samples and dimensions; the source divided by the number of learned classes
  once more, so its weight faded. Its labels are balanced over L.
- (6) belonged to the joint trainer only; here the prototypes are those of the current task.
- The classifier's real and replayed examples compete with all rivals; the source let real ones
  compete within C_t, replayed ones in some versions within L. "Seen" classes are replayed only by
  a generator that has met them: classifier-first tasks replay learned ones.
- A class enters G as one-hot code: a learned embedding before a linear layer is the same function.
- Steps are counted, not epochs; gradients are not clipped; Adam everywhere, rebuilt at each task.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad

from trainables.engine import noise as draws
from trainables.engine.losses import (
    class_means,
    cross_entropy,
    gradient_penalty,
    rehearsed_cross_entropy,
    weighted,
)
from trainables.engine.method import Batch, Method, Params, Problem, Scalar
from trainables.engine.nets import Net, choose, mlp, one_hot
from trainables.engine.optim import Moments, adam_on, moments
from trainables.engine.schedule import program


class Shape(NamedTuple):  # static: trials are fused when these agree
    latent: int = 32  # size of z
    generator_hidden: int = 128
    generator_layers: int = 2  # hidden layers
    critic_hidden: int = 128
    critic_layers: int = 1
    classifier_hidden: int = 128
    classifier_layers: int = 1
    batch_size: int = 64
    replay_batch_size: int = 64  # of (7) and (8)


class Hyper(NamedTuple):  # scalars: free to differ from lane to lane
    order: str = "gan_first"  # or "classifier_first", "interleaved"
    gan_steps: Scalar = 300  # critic updates a task
    classifier_steps: Scalar = 300  # updates a task
    critic_steps: Scalar = 5  # n, critic updates for one of the generator
    generator_lr: Scalar = 1e-3
    generator_beta1: Scalar = 0.0
    generator_beta2: Scalar = 0.9
    critic_lr: Scalar = 1e-3
    critic_beta1: Scalar = 0.0
    critic_beta2: Scalar = 0.9
    classifier_lr: Scalar = 1e-3
    classifier_beta1: Scalar = 0.0
    classifier_beta2: Scalar = 0.9
    generator_adversarial: Scalar = 1.0  # w1 >= 0, like all coefficients
    generator_classification: Scalar = 0.1  # w2
    critic_adversarial: Scalar = 1.0  # w3
    critic_classification: Scalar = 1.0  # w4
    gradient_penalty: Scalar = 10.0  # w5
    use_prototypes: Scalar = False  # whether (6) is in the loss
    generator_prototype: Scalar = 1.0  # w6, if so
    generator_rehearsal: Scalar = 30.0  # w7
    classifier_rehearsal: Scalar = 1.0  # w8
    replay_seen: Scalar = False  # (8) replays the seen classes, else the learned ones
    label_smoothing: Scalar = 0.0  # of the classifier's targets, in [0, 1)
    reset_critic: Scalar = False  # fresh critic at the start of a task
    reset_classifier: Scalar = False


class State(NamedTuple):
    generator: Params  # G
    critic: Params  # D and d: outputs (1 + C)
    classifier: Params  # c
    frozen: Params  # Ḡ
    prototypes: Tensor  # (C, D) x̄, of the current task; zero elsewhere
    generator_moments: Moments
    critic_moments: Moments
    classifier_moments: Moments


class Nets(NamedTuple):
    generator: Net
    critic: Net
    classifier: Net


def networks(problem: Problem, shape: Shape) -> Nets:
    """G: [z | one-hot y] -> x, D and d: x -> (1 + C), c: x -> C."""
    inputs, classes = torch.Size(problem.input_shape).numel(), problem.classes
    g = [shape.latent + classes] + [shape.generator_hidden] * shape.generator_layers + [inputs]
    d = [inputs] + [shape.critic_hidden] * shape.critic_layers + [1 + classes]
    c = [inputs] + [shape.classifier_hidden] * shape.classifier_layers + [classes]
    return Nets(
        mlp(g, slope=0.01, dtype=problem.dtype),
        mlp(d, dtype=problem.dtype),
        mlp(c, dtype=problem.dtype),
    )


def generate(nets: Nets, params: Params, z: Tensor, y: Tensor, classes: int) -> Tensor:
    """G(z, y), ``(B, D)``."""
    return nets.generator.apply(params, torch.cat([z, one_hot(y, classes, z)], -1))


def critic_loss(critic: Params, x: Tensor, fake: Tensor, batch: Batch, hyper: Hyper, mix, nets):
    """The sum of (1), (2) and (3), and its terms."""
    real_out, fake_out = nets.critic.apply(critic, torch.cat([x, fake])).chunk(2)
    value = lambda q: nets.critic.apply(critic, q)[:, 0]  # noqa: E731
    terms = {
        "critic_adversarial": fake_out[:, 0].mean() - real_out[:, 0].mean(),
        "critic_classification": cross_entropy(real_out[:, 1:], batch.y, batch.current),
        "gradient_penalty": gradient_penalty(value, x, fake, mix),
    }
    return weighted(terms, hyper), terms


def generator_loss(generator: Params, state: State, batch: Batch, hyper: Hyper, noise, nets):
    """The sum of (4) to (7), and its terms."""
    z, y = torch.cat([noise["z"], noise["z_old"]]), torch.cat([batch.y, noise["y_old"]])
    sizes = len(batch.y), len(noise["y_old"])
    fake, replayed = generate(nets, generator, z, y, batch.current.shape[-1]).split(sizes)
    out = nets.critic.apply(state.critic, fake)
    drift = prototype_distance(fake, batch.y, state.prototypes)
    terms = {
        "generator_adversarial": -out[:, 0].mean(),
        "generator_classification": cross_entropy(out[:, 1:], batch.y, batch.current),
        "generator_prototype": drift * (hyper.use_prototypes > 0),
        "generator_rehearsal": alignment(replayed, state.frozen, batch, noise, nets),
    }
    return weighted(terms, hyper), terms


def prototype_distance(fake: Tensor, y: Tensor, prototypes: Tensor) -> Tensor:
    """(6): squared distance between generated and real class means, mean over classes and D."""
    means, counts = class_means(fake, y, len(prototypes))
    present = (counts > 0).to(fake.dtype)
    return ((means - prototypes).square().mean(-1) * present).sum() / present.sum()


def alignment(replayed: Tensor, frozen: Params, batch: Batch, noise, nets: Nets) -> Tensor:
    """(7), zero in the first task. ``replayed`` is G of the same noise and labels as Ḡ's."""
    before = generate(nets, frozen, noise["z_old"], noise["y_old"], batch.learned.shape[-1])
    return (replayed - before).square().mean() * batch.learned.any()


def classifier_loss(classifier: Params, state: State, batch: Batch, hyper: Hyper, noise, nets):
    """The classifier's loss on real data and (8), zero in the first task; and both terms."""
    y = noise["y_replay"]
    replayed = generate(nets, state.generator, noise["z_replay"], y, batch.learned.shape[-1])
    return rehearsed_cross_entropy(
        lambda x: nets.classifier.apply(classifier, x), batch, replayed, y,
        hyper.classifier_rehearsal, hyper.label_smoothing,
    )  # fmt: skip


def build(problem: Problem, shape: Shape) -> Method:
    nets = networks(problem, shape)

    def init(generator):
        g, d, c = (net.init(generator) for net in nets)
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

    def critic_step(state, batch, hyper, noise):
        x = batch.x.flatten(1)
        fake = generate(nets, state.generator, noise["z_critic"], batch.y, problem.classes)
        grads, terms = grad(critic_loss, has_aux=True)(
            state.critic, x, fake, batch, hyper, noise["mix"], nets
        )
        return adam_on(state, "critic", grads, hyper), terms

    def generator_step(state, batch, hyper, noise):
        grads, terms = grad(generator_loss, has_aux=True)(
            state.generator, state, batch, hyper, noise, nets
        )
        return adam_on(state, "generator", grads, hyper), terms

    def classifier_step(state, batch, hyper, noise):
        grads, terms = grad(classifier_loss, has_aux=True)(
            state.classifier, state, batch, hyper, noise, nets
        )
        return adam_on(state, "classifier", grads, hyper), terms

    def draw(generator, phase, steps, task, hyper):
        learned = task.learned if task.learned.any() else task.current  # weighed 0 in task 0
        z = lambda size: torch.randn(  # noqa: E731
            steps, size, shape.latent, generator=generator, dtype=problem.dtype
        )
        if phase == "critic":
            one_each = steps, shape.batch_size, 1
            mix = torch.rand(one_each, generator=generator, dtype=problem.dtype)
            return {"z_critic": z(shape.batch_size), "mix": mix}
        if phase == "generator":
            y_old = draws.labels(generator, learned, steps, shape.replay_batch_size)
            return {"z": z(shape.batch_size), "z_old": z(shape.replay_batch_size), "y_old": y_old}
        if phase == "classifier":
            seen = hyper.replay_seen and hyper.order != "classifier_first"
            among = task.seen if seen else learned
            y_replay = draws.labels(generator, among, steps, shape.replay_batch_size)
            return {"z_replay": z(shape.replay_batch_size), "y_replay": y_replay}
        return {}

    return Method(
        init=init,
        schedule=schedule,
        steps={
            "critic": critic_step,
            "generator": generator_step,
            "classifier": classifier_step,
        },
        predict=lambda state, x: nets.classifier.apply(state.classifier, x.flatten(1)),
        begin_task=begin_task,
        draw=draw,
        latent=shape.latent,
        sample=lambda state, y, z: generate(nets, state.generator, z, y, problem.classes).unflatten(
            -1, problem.input_shape
        ),
        carried=lambda state: (state.generator, state.critic, state.classifier),
        batch_size=shape.batch_size,
    )


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
