"""A class-conditional variational autoencoder, and what keeps it from forgetting.

Encoder q(z|x,y), decoder p(x|z,y) and prior p(z|y) are diagonal Gaussians (the decoder's mean
matters alone); y enters as the class's code, one-hot or its attributes. The prior is a network of
the code that starts as N(0, I).

Source: Kingma & Welling 2014, https://arxiv.org/abs/1312.6114; Sohn et al. 2015.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad

from trainables.engine import noise as draws
from trainables.engine.losses import alignment, gaussian_kl, weighted
from trainables.engine.method import Batch, Hyper, Params, Problem
from trainables.engine.nets import Net, decoder, encoder, mlp
from trainables.engine.optim import adam_on


class Vae(NamedTuple):
    """Parameters, or their gradients."""

    encoder: Params  # [x | code] -> [μ | log σ²] of z
    decoder: Params  # [z | code] -> x
    prior: Params  # code -> [μ | log σ²] of z


class Nets(NamedTuple):
    encoder: Net
    decoder: Net
    prior: Net
    codes: Tensor  # (C, K), of the classes


class Gaussian(NamedTuple):
    mean: Tensor  # (B, Z)
    log_variance: Tensor  # (B, Z)

    def sample(self, unit: Tensor) -> Tensor:
        """``unit`` is a sample of N(0, I)."""
        return self.mean + unit * (0.5 * self.log_variance).exp()


def networks(
    network: str, problem: Problem, shape: tuple[int, ...], latent: int, hidden: int, layers: int
) -> Nets:
    """The networks of a VAE of examples of this shape; ``network`` as in ``nets.encoder``."""
    codes, dtype = problem.codes, problem.dtype
    told = codes.shape[1]
    return Nets(
        encoder(network, shape, hidden, layers, 2 * latent, condition=told, dtype=dtype),
        decoder(network, latent + told, hidden, layers, shape, dtype=dtype),
        mlp([told, *[hidden] * layers, 2 * latent], dtype=dtype),
        codes,
    )


def init(nets: Nets, generator: torch.Generator) -> Vae:
    """Fresh parameters, the prior N(0, I)."""
    parts = (net.init(generator) for net in (nets.encoder, nets.decoder, nets.prior))
    encoder, decoder, prior = parts
    last = max(name for name in prior if name.startswith("w"))
    return Vae(encoder, decoder, prior | {last: torch.zeros_like(prior[last])})


def encode(nets: Nets, vae: Vae, x: Tensor, y: Tensor) -> Gaussian:
    """q(z|x,y)."""
    told = torch.cat([x, nets.codes.to(x)[y]], -1)
    return Gaussian(*nets.encoder.apply(vae.encoder, told).chunk(2, -1))


def decode(nets: Nets, vae: Vae, z: Tensor, y: Tensor) -> Tensor:
    """The mean of p(x|z,y), ``(B, D)``."""
    return nets.decoder.apply(vae.decoder, torch.cat([z, nets.codes.to(z)[y]], -1))


def prior_of(nets: Nets, vae: Vae, y: Tensor, like: Tensor) -> Gaussian:
    """p(z|y), of the type and on the device of another tensor."""
    return Gaussian(*nets.prior.apply(vae.prior, nets.codes.to(like)[y]).chunk(2, -1))


def generate(nets: Nets, vae: Vae, unit: Tensor, y: Tensor) -> Tensor:
    """x of class y by way of the prior. ``unit`` is a sample of N(0, I), ``(B, Z)``."""
    return decode(nets, vae, prior_of(nets, vae, y, unit).sample(unit), y)


def loss(vae: Vae, state, batch: Batch, hyper: Hyper, noise, nets: Nets):
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
        "divergence": gaussian_kl(*posterior, *prior_of(nets, vae, y, x)),
        "encoder_rehearsal": alignment(*codes, batch.learned),
        "decoder_rehearsal": alignment(x_new, x_before, batch.learned),
    }
    reconstructed = decode(nets, vae, posterior.sample(noise["posterior"]), y)
    error = (reconstructed - x).square().mean()
    return error + weighted(terms, hyper), {"reconstruction": error, **terms}


def step(loss: Callable) -> Callable:
    """A step of a method's player ``vae``; its prior moves with ``hyper.learn_prior`` only.

    Args:
        loss: as for ``optim.adam_step``.
    """

    def step(state, batch, hyper, noise):
        grads, terms = grad(loss, has_aux=True)(state.vae, state, batch, hyper, noise)
        kept = {name: slope * hyper.learn_prior for name, slope in grads.prior.items()}
        return adam_on(state, "vae", grads._replace(prior=kept), hyper), terms

    return step


def draw(generator, steps: int, task: Batch, size: int, replayed: int, latent: int, dtype):
    """Random numbers of ``loss`` for S steps on B examples and R replayed ones.

    Args:
        size, replayed, latent: B, R and Z.
    """
    unit = lambda size: draws.normal(generator, steps, size, latent, dtype=dtype)  # noqa: E731
    return {
        "posterior": unit(size),
        "y_old": draws.labels(generator, draws.rehearsed(task), steps, replayed),
        "prior_old": unit(replayed),
        "posterior_old": unit(replayed),
    }
