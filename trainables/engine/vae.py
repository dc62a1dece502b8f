"""Latent generative memory with a VAE: what its variants share.

Two players on features x: a class-conditional variational autoencoder and a classifier c that
rehearses what the autoencoder generates.
Encoder q(z|x,y), decoder p(x|z,y) and prior p(z|y) are diagonal Gaussians (the decoder's mean
matters alone); y enters as the class's code, one-hot or its attributes. The prior is a network of
the code that starts as N(0, I).

Source: Kingma & Welling 2014, https://arxiv.org/abs/1312.6114; Sohn et al. 2015.
"""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad

from trainables.engine import noise as draws
from trainables.engine.losses import (
    alignment,
    gaussian_kl,
    rehearsed_cross_entropy,
    weighted,
)
from trainables.engine.method import Batch, Hyper, Method, Params, Problem, Shape
from trainables.engine.nets import Net, choose, classifier, decoder, encoder, mlp
from trainables.engine.optim import Moments, adam_on, adam_step, moments
from trainables.engine.schedule import program


class Vae(NamedTuple):
    """Parameters, or their gradients."""

    encoder: Params  # [x | code] -> [μ | log σ²] of z
    decoder: Params  # [z | code] -> x
    prior: Params  # code -> [μ | log σ²] of z


class Nets(NamedTuple):
    encoder: Net
    decoder: Net
    prior: Net
    classifier: Net  # x -> C
    codes: Tensor  # (C, K), of the classes


class State(NamedTuple):
    vae: Vae
    classifier: Params  # c
    frozen: Vae  # the autoencoder when the task began
    vae_moments: Moments
    classifier_moments: Moments


class Gaussian(NamedTuple):
    mean: Tensor  # (B, Z)
    log_variance: Tensor  # (B, Z)

    def sample(self, unit: Tensor) -> Tensor:
        """``unit`` is a sample of N(0, I)."""
        return self.mean + unit * (0.5 * self.log_variance).exp()


def networks(problem: Problem, shape: Shape) -> Nets:
    """``shape`` has ``network``, ``latent``, and width and depth of ``vae`` and ``classifier``."""
    network, size, codes, z = shape.network, problem.input_shape, problem.codes, shape.latent
    told, hidden, layers, dtype = codes.shape[1], shape.vae_hidden, shape.vae_layers, problem.dtype
    c = shape.classifier_hidden, shape.classifier_layers
    return Nets(
        encoder(network, size, hidden, layers, 2 * z, condition=told, dtype=dtype),
        decoder(network, z + told, hidden, layers, size, dtype=dtype),
        mlp([told, *[hidden] * layers, 2 * z], dtype=dtype),
        classifier(network, problem, size, *c),
        codes,
    )


def fresh_vae(nets: Nets, generator: torch.Generator) -> Vae:
    """Fresh parameters, the prior N(0, I)."""
    parts = (net.init(generator) for net in (nets.encoder, nets.decoder, nets.prior))
    encoder, decoder, prior = parts
    last = max(name for name in prior if name.startswith("w"))
    return Vae(encoder, decoder, prior | {last: torch.zeros_like(prior[last])})


def encode(nets: Nets, vae: Vae, x: Tensor, y: Tensor) -> Gaussian:
    """q(z|x,y)."""
    told = torch.cat([x, nets.codes[y]], -1)
    return Gaussian(*nets.encoder.apply(vae.encoder, told).chunk(2, -1))


def decode(nets: Nets, vae: Vae, z: Tensor, y: Tensor) -> Tensor:
    """The mean of p(x|z,y), ``(B, D)``."""
    return nets.decoder.apply(vae.decoder, torch.cat([z, nets.codes[y]], -1))


def prior_of(nets: Nets, vae: Vae, y: Tensor) -> Gaussian:
    """p(z|y)."""
    return Gaussian(*nets.prior.apply(vae.prior, nets.codes[y]).chunk(2, -1))


def generate(nets: Nets, vae: Vae, unit: Tensor, y: Tensor) -> Tensor:
    """x of class y by way of the prior. ``unit`` is a sample of N(0, I), ``(B, Z)``."""
    return decode(nets, vae, prior_of(nets, vae, y).sample(unit), y)


def vae_loss(vae: Vae, state: State, batch: Batch, hyper: Hyper, noise, nets: Nets):
    """What a rehearsing VAE minimises: the sum of its terms, and these.

        E mean_d (x̂ − x)²                                           reconstruction
        + w1 E mean_d KL( q(z|x,y) ‖ p(z|y) )                       divergence
        + w2 E mean_d ([μ, log σ²](x̄,ȳ) − [μ̄, log σ̄²](x̄,ȳ))²        encoder_rehearsal
        + w3 E mean_d (p(z̄,ȳ) − p̄(z̄,ȳ))²                           decoder_rehearsal

    A bar marks the snapshot ``state.frozen``: x̄ is what it generates for ȳ, z̄ a sample of its
    posterior for (x̄, ȳ). The last two are zero in the first task.

    Args:
        noise: ``posterior`` (B, Z); ``y_old`` (R,), ``prior_old`` and ``posterior_old`` (R, Z).
    """
    x, y, old, frozen = batch.x.flatten(1), batch.y, noise["y_old"], state.frozen
    posterior = encode(nets, vae, x, y)
    x_old = generate(nets, frozen, noise["prior_old"], old)
    q_old, q_new = encode(nets, frozen, x_old, old), encode(nets, vae, x_old, old)
    z_old = q_old.sample(noise["posterior_old"])
    x_new, x_before = decode(nets, vae, z_old, old), decode(nets, frozen, z_old, old)
    codes = torch.cat(q_new, -1), torch.cat(q_old, -1)
    terms = {
        "divergence": gaussian_kl(*posterior, *prior_of(nets, vae, y)),
        "encoder_rehearsal": alignment(*codes, batch.learned),
        "decoder_rehearsal": alignment(x_new, x_before, batch.learned),
    }
    reconstructed = decode(nets, vae, posterior.sample(noise["posterior"]), y)
    error = (reconstructed - x).square().mean()
    return error + weighted(terms, hyper), {"reconstruction": error, **terms}


def classifier_loss(params: Params, state: State, batch: Batch, hyper: Hyper, noise, nets: Nets):
    """CE(c(x), y) + w E_{y~S or L} CE(c(p(z,y)), y), the latter zero in the first task."""
    y = noise["y_replay"]
    return rehearsed_cross_entropy(
        lambda x: nets.classifier.apply(params, x), batch,
        generate(nets, state.vae, noise["prior_replay"], y), y,
        hyper.classifier_rehearsal, hyper.label_smoothing,
    )  # fmt: skip


def build(problem: Problem, shape: Shape, nets: Nets) -> Method:
    """LGM-VAE. ``shape`` has ``latent``, ``batch_size`` and ``replay_batch_size``."""

    def init(generator):
        vae, c = fresh_vae(nets, generator), nets.classifier.init(generator)
        return State(vae, c, vae, moments(vae), moments(c))

    def begin_task(state, fresh, task, hyper):
        return State(
            vae=state.vae,
            classifier=choose(hyper.reset_classifier > 0, fresh.classifier, state.classifier),
            frozen=state.vae,
            vae_moments=fresh.vae_moments,
            classifier_moments=fresh.classifier_moments,
        )

    def vae_step(state, batch, hyper, noise):
        loss = partial(vae_loss, nets=nets)
        grads, terms = grad(loss, has_aux=True)(state.vae, state, batch, hyper, noise)
        kept = {name: slope * hyper.learn_prior for name, slope in grads.prior.items()}
        return adam_on(state, "vae", grads._replace(prior=kept), hyper), terms

    def sample(state, y, z):
        return generate(nets, state.vae, z, y).unflatten(-1, problem.input_shape)

    loss_of_classifier = partial(classifier_loss, nets=nets)
    return Method(
        init=init,
        schedule=schedule,
        steps={"vae": vae_step, "classifier": adam_step("classifier", loss_of_classifier)},
        predict=lambda state, x: nets.classifier.apply(state.classifier, x.flatten(1)),
        begin_task=begin_task,
        draw=partial(draw, shape=shape, dtype=problem.dtype),
        sample=sample,
        latent=shape.latent,
        classifier_loss=loss_of_classifier,
        carried=lambda state: (state.vae, state.classifier),
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
    dtype: torch.dtype,
) -> Mapping[str, Tensor]:
    """``Method.draw``.

    "Seen" classes are replayed to the classifier only by an autoencoder that has met them:
    classifier-first tasks replay learned ones.
    """
    replayed = shape.replay_batch_size
    unit = lambda size: draws.normal(generator, steps, size, shape.latent, dtype=dtype)  # noqa: E731
    if phase == "vae":
        return {
            "posterior": unit(shape.batch_size),
            "y_old": draws.labels(generator, draws.rehearsed(task), steps, replayed),
            "prior_old": unit(replayed),
            "posterior_old": unit(replayed),
        }
    if phase == "classifier":
        seen = hyper.replay_seen and hyper.order != "classifier_first"
        among = draws.rehearsed(task, seen)
        y_replay = draws.labels(generator, among, steps, replayed)
        return {"y_replay": y_replay, "prior_replay": unit(replayed)}
    return {}


def schedule(hyper: Hyper, t: int) -> list[tuple[str, int]]:
    """The steps of a task in the order that ``hyper.order`` names.

    Raises:
        ValueError: for an unknown order.
    """
    vae = [("vae",)] * int(hyper.vae_steps)
    classifier = [("classifier",)] * int(hyper.classifier_steps)
    return program(hyper.order, {"vae": vae, "classifier": classifier})
