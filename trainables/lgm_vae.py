"""Latent generative memory with a class-conditional VAE (LGM-VAE): replay what a decoder remembers.

Two players on the features x of a fixed embedder: a conditional variational autoencoder with
encoder q(z|x,y), decoder p(x|z,y) and prior p(z|y), all Gaussian, and a classifier c. A bar marks
the autoencoder as it was when the task began; S and L are the classes seen (this task's included)
and learned (earlier tasks'). x̄ is what the old decoder generates for ȳ ~ L, z̄ a sample of the old
posterior q̄(z|x̄,ȳ). A task has autoencoder steps on

    E mean_d (x̂ − x)²                                           reconstruction
    + w1 E mean_d KL( q(z|x,y) ‖ p(z|y) )                       divergence              (1)
    + w2 E mean_d ([μ, log σ²](x̄,ȳ) − [μ̄, log σ̄²](x̄,ȳ))²        encoder rehearsal       (2)
    + w3 E mean_d (p(z̄,ȳ) − p̄(z̄,ȳ))²                           decoder rehearsal       (3)

and classifier steps on

    CE(c(x), y) + w4 E_{y~S or L} CE(c(p(z,y)), y),  z ~ p(z|y)   classifier rehearsal    (4)

with CE over all classes that compete (seen, in the class-incremental scenario). The prior is a
network of the class that starts as N(0, I); with ``learn_prior`` it is trained by (1).

Source: I. Skorokhodov's LGM code and slides of 2019-2020 (universome/class-norm, commits d26f568,
0942e24 and 8c035ef); no paper. (1) Kingma & Welling 2014, Sohn et al. 2015.
Differs from the source:
- All terms are means over dimensions; the source summed (1) over them, so that its weight depended
  on the size of z: its 0.01 is w1 = 0.01 Z here.
- Replayed examples compete with all rivals; in earlier versions of the source with L only. "Seen"
  classes are replayed only by a decoder that has met them: classifier-first tasks replay learned
  ones.
- The learned prior is not rehearsed by a term of its own, as in the source: (2) keeps the posterior
  that it follows.
- A class enters a network as one-hot code: a learned embedding before a linear layer is the same
  function.
- Steps are counted, not epochs; Adam everywhere, rebuilt at each task; one hidden layer and 128
  units where the source has three and 512.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad

from trainables.engine import noise as draws
from trainables.engine.losses import gaussian_kl, rehearsed_cross_entropy, weighted
from trainables.engine.method import Batch, Method, Params, Problem, Scalar
from trainables.engine.nets import Net, choose, mlp, one_hot
from trainables.engine.optim import Moments, adam_on, moments
from trainables.engine.schedule import program


class Shape(NamedTuple):  # static: trials are fused when these agree
    latent: int = 32  # size of z
    vae_hidden: int = 128  # of encoder, decoder and prior
    vae_layers: int = 1
    classifier_hidden: int = 128
    classifier_layers: int = 1
    batch_size: int = 64
    replay_batch_size: int = 64  # of (2) to (4)


class Hyper(NamedTuple):  # scalars: free to differ from lane to lane
    order: str = "classifier_first"  # or "vae_first", "interleaved"
    vae_steps: Scalar = 250  # updates a task
    classifier_steps: Scalar = 250
    vae_lr: Scalar = 1e-3
    vae_beta1: Scalar = 0.0
    vae_beta2: Scalar = 0.9
    classifier_lr: Scalar = 1e-3
    classifier_beta1: Scalar = 0.0
    classifier_beta2: Scalar = 0.9
    divergence: Scalar = 0.32  # w1 >= 0, like all coefficients
    encoder_rehearsal: Scalar = 1.0  # w2
    decoder_rehearsal: Scalar = 1.0  # w3
    classifier_rehearsal: Scalar = 1.0  # w4
    learn_prior: Scalar = False
    replay_seen: Scalar = False  # (4) replays the seen classes, else the learned ones
    label_smoothing: Scalar = 0.0  # of the classifier's targets, in [0, 1)
    reset_classifier: Scalar = False  # fresh classifier at the start of a task


class Vae(NamedTuple):
    encoder: Params  # [x | y] -> [μ | log σ²] of z
    decoder: Params  # [z | y] -> x
    prior: Params  # y -> [μ | log σ²] of z


class State(NamedTuple):
    vae: Vae
    classifier: Params  # c
    frozen: Vae  # the autoencoder when the task began
    vae_moments: Moments
    classifier_moments: Moments


class Nets(NamedTuple):
    encoder: Net
    decoder: Net
    prior: Net
    classifier: Net


class Gaussian(NamedTuple):
    mean: Tensor  # (B, Z)
    log_variance: Tensor  # (B, Z)

    def sample(self, unit: Tensor) -> Tensor:
        """``unit`` is a sample of N(0, I)."""
        return self.mean + unit * (0.5 * self.log_variance).exp()


def networks(problem: Problem, shape: Shape) -> Nets:
    inputs, classes, z = torch.Size(problem.input_shape).numel(), problem.classes, shape.latent
    hidden = [shape.vae_hidden] * shape.vae_layers
    c = [inputs] + [shape.classifier_hidden] * shape.classifier_layers + [classes]
    return Nets(
        mlp([inputs + classes, *hidden, 2 * z], dtype=problem.dtype),
        mlp([z + classes, *hidden, inputs], dtype=problem.dtype),
        mlp([classes, *hidden, 2 * z], dtype=problem.dtype),
        mlp(c, dtype=problem.dtype),
    )


def encode(nets: Nets, vae: Vae, x: Tensor, code: Tensor) -> Gaussian:
    """q(z|x,y). ``code`` is y one-hot, ``(B, C)``."""
    return Gaussian(*nets.encoder.apply(vae.encoder, torch.cat([x, code], -1)).chunk(2, -1))


def decode(nets: Nets, vae: Vae, z: Tensor, code: Tensor) -> Tensor:
    """The mean of p(x|z,y), ``(B, D)``."""
    return nets.decoder.apply(vae.decoder, torch.cat([z, code], -1))


def prior_of(nets: Nets, vae: Vae, code: Tensor) -> Gaussian:
    """p(z|y)."""
    return Gaussian(*nets.prior.apply(vae.prior, code).chunk(2, -1))


def generate(nets: Nets, vae: Vae, unit: Tensor, code: Tensor) -> Tensor:
    """x of class y by way of the prior. ``unit`` is a sample of N(0, I), ``(B, Z)``."""
    return decode(nets, vae, prior_of(nets, vae, code).sample(unit), code)


def vae_loss(vae: Vae, state: State, batch: Batch, hyper: Hyper, noise, nets: Nets):
    """The reconstruction and (1) to (3), weighted, and these terms."""
    x, classes, frozen = batch.x.flatten(1), batch.current.shape[-1], state.frozen
    code, old = one_hot(batch.y, classes, x), one_hot(noise["y_old"], classes, x)
    posterior = encode(nets, vae, x, code)
    x_old = generate(nets, frozen, noise["prior_old"], old)
    q_old, q_new = encode(nets, frozen, x_old, old), encode(nets, vae, x_old, old)
    z_old = q_old.sample(noise["posterior_old"])
    some = batch.learned.any()  # nothing is rehearsed in the first task
    code_drift = torch.cat(q_new, -1) - torch.cat(q_old, -1)
    drift = decode(nets, vae, z_old, old) - decode(nets, frozen, z_old, old)
    terms = {
        "divergence": gaussian_kl(*posterior, *prior_of(nets, vae, code)),
        "encoder_rehearsal": code_drift.square().mean() * some,
        "decoder_rehearsal": drift.square().mean() * some,
    }
    reconstructed = decode(nets, vae, posterior.sample(noise["posterior"]), code)
    error = (reconstructed - x).square().mean()
    return error + weighted(terms, hyper), {"reconstruction": error, **terms}


def classifier_loss(classifier: Params, state: State, batch: Batch, hyper: Hyper, noise, nets):
    """The classifier's loss on real data and (4), zero in the first task; and both terms."""
    y = noise["y_replay"]
    code = one_hot(y, batch.current.shape[-1], batch.x)
    replayed = generate(nets, state.vae, noise["prior_replay"], code)
    return rehearsed_cross_entropy(
        lambda x: nets.classifier.apply(classifier, x), batch, replayed, y,
        hyper.classifier_rehearsal, hyper.label_smoothing,
    )  # fmt: skip


def build(problem: Problem, shape: Shape) -> Method:
    nets = networks(problem, shape)

    def init(generator):
        encoder, decoder, prior, classifier = (net.init(generator) for net in nets)
        last = f"w{shape.vae_layers}"
        vae = Vae(encoder, decoder, prior | {last: torch.zeros_like(prior[last])})  # N(0, I)
        return State(vae, classifier, vae, moments(vae), moments(classifier))

    def begin_task(state, fresh, task, hyper):
        return State(
            vae=state.vae,
            classifier=choose(hyper.reset_classifier > 0, fresh.classifier, state.classifier),
            frozen=state.vae,
            vae_moments=fresh.vae_moments,
            classifier_moments=fresh.classifier_moments,
        )

    def vae_step(state, batch, hyper, noise):
        grads, terms = grad(vae_loss, has_aux=True)(state.vae, state, batch, hyper, noise, nets)
        kept = {name: slope * hyper.learn_prior for name, slope in grads.prior.items()}
        grads = grads._replace(prior=kept)
        return adam_on(state, "vae", grads, hyper), terms

    def classifier_step(state, batch, hyper, noise):
        grads, terms = grad(classifier_loss, has_aux=True)(
            state.classifier, state, batch, hyper, noise, nets
        )
        return adam_on(state, "classifier", grads, hyper), terms

    def draw(generator, phase, steps, task, hyper):
        learned = task.learned if task.learned.any() else task.current  # weighed 0 in task 0
        unit = lambda size: torch.randn(  # noqa: E731
            steps, size, shape.latent, generator=generator, dtype=problem.dtype
        )
        size = shape.replay_batch_size
        if phase == "vae":
            return {
                "posterior": unit(shape.batch_size),
                "y_old": draws.labels(generator, learned, steps, size),
                "prior_old": unit(size),
                "posterior_old": unit(size),
            }
        if phase == "classifier":
            seen = hyper.replay_seen and hyper.order != "classifier_first"
            y_replay = draws.labels(generator, task.seen if seen else learned, steps, size)
            return {"y_replay": y_replay, "prior_replay": unit(size)}
        return {}

    def sample(state, y, z):
        x = generate(nets, state.vae, z, one_hot(y, problem.classes, z))
        return x.unflatten(-1, problem.input_shape)

    return Method(
        init=init,
        schedule=schedule,
        steps={"vae": vae_step, "classifier": classifier_step},
        predict=lambda state, x: nets.classifier.apply(state.classifier, x.flatten(1)),
        begin_task=begin_task,
        draw=draw,
        sample=sample,
        latent=shape.latent,
        carried=lambda state: (state.vae, state.classifier),
        batch_size=shape.batch_size,
    )


def schedule(hyper: Hyper, t: int) -> list[tuple[str, int]]:
    """The steps of a task in the order that ``hyper.order`` names.

    Raises:
        ValueError: for an unknown order.
    """
    vae = [("vae",)] * int(hyper.vae_steps)
    classifier = [("classifier",)] * int(hyper.classifier_steps)
    return program(hyper.order, {"vae": vae, "classifier": classifier})
