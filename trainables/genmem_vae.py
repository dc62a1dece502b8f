"""Generative memory with a VAE (GenMem-VAE), the ancestor of LGM-VAE: learn anew from memory.

Two players on the features x of a fixed embedder: a conditional variational autoencoder with
encoder q(z|x,y), decoder p(x|z,y) and prior p(z|y), all Gaussian, and a classifier c. At the start
of a task both may be forgotten. What the old autoencoder knew (marked by a bar) comes back by
rehearsal alone; x̄ is what it generates for classes ȳ ~ L of earlier tasks, z̄ a sample of its
posterior q̄(z|x̄,ȳ). A task has autoencoder steps on

    E mean_d (x̂ − x)²                                           reconstruction
    + w1 E mean_d KL( q(z|x,y) ‖ p(z|y) )                       divergence              (1)
    + w2 E mean_d ([μ, log σ²](x̄,ȳ) − [μ̄, log σ̄²](x̄,ȳ))²        encoder rehearsal       (2)
    + w3 E mean_d (p(z̄,ȳ) − p̄(z̄,ȳ))²                           decoder rehearsal       (3)

and then classifier steps on generated examples of all classes S seen, and on nothing else,

    E_{y~S} CE(c(p(z,y)), y),  z ~ p(z|y)                       classifier              (4)

with CE over all classes that compete. Where LGM-VAE rehearses, this one starts over.

Source: I. Skorokhodov's GenMem code of November 2019 (universome/class-norm, commits a673393 to
bb333a5); no paper. (1) Kingma & Welling 2014, Sohn et al. 2015.
Differs from the source:
- All terms are means over dimensions; the source summed (1) over them, so that its weight depended
  on the size of z: its 0.01 is w1 = 0.01 Z here.
- Steps are counted, not epochs; Adam rebuilt at each task, without weight decay; one hidden layer
  and 128 units where the source has two and 512; class attributes where the platform is asked to.
"""

from functools import partial
from typing import NamedTuple

from trainables.engine import noise as draws
from trainables.engine import vae
from trainables.engine.losses import cross_entropy
from trainables.engine.method import Batch, Method, Params, Problem, Scalar
from trainables.engine.nets import choose
from trainables.engine.optim import adam_step
from trainables.engine.vae import Nets, State

__all__ = ["Hyper", "Shape", "State", "build"]


class Shape(NamedTuple):  # static: trials are fused when these agree
    network: str = "perceptron"  # or "convolutional", for images and feature maps
    latent: int = 32  # size of z
    vae_hidden: int = 128  # of encoder, decoder and prior
    vae_layers: int = 1
    classifier_hidden: int = 128
    classifier_layers: int = 1
    batch_size: int = 64
    replay_batch_size: int = 128  # of (2) and (3)
    classifier_batch_size: int = 128  # of (4)


class Hyper(NamedTuple):  # scalars: free to differ from lane to lane
    vae_steps: Scalar = 400  # updates a task
    classifier_steps: Scalar = 300
    vae_lr: Scalar = 1e-3
    vae_beta1: Scalar = 0.9
    vae_beta2: Scalar = 0.999
    classifier_lr: Scalar = 1e-3
    classifier_beta1: Scalar = 0.9
    classifier_beta2: Scalar = 0.999
    divergence: Scalar = 0.32  # w1 >= 0, like all coefficients
    encoder_rehearsal: Scalar = 1.0  # w2
    decoder_rehearsal: Scalar = 1.0  # w3
    learn_prior: Scalar = False
    label_smoothing: Scalar = 0.0  # of the classifier's targets, in [0, 1)
    reset_vae: Scalar = True  # forget the autoencoder at the start of a task
    reset_classifier: Scalar = True


def classifier_loss(params: Params, state: State, batch: Batch, hyper: Hyper, noise, nets: Nets):
    """(4), and the same as the only term."""
    y = noise["y"]
    logits = nets.classifier.apply(params, vae.generate(nets, state.vae, noise["prior"], y))
    loss = cross_entropy(logits, y, batch.rivals[y], hyper.label_smoothing)
    return loss, {"classifier": loss}


def build(problem: Problem, shape: Shape) -> Method:
    nets = vae.networks(problem, shape)
    lgm = vae.build(problem, shape, nets)

    def begin_task(state, fresh, task, hyper):
        begun = lgm.begin_task(state, fresh, task, hyper)
        return begun._replace(vae=choose(hyper.reset_vae > 0, fresh.vae, state.vae))

    def draw(generator, phase, steps, task, hyper):
        if phase != "classifier":
            return lgm.draw(generator, phase, steps, task, hyper)
        size, dtype = shape.classifier_batch_size, problem.dtype
        return {
            "y": draws.labels(generator, task.seen, steps, size),
            "prior": draws.normal(generator, steps, size, shape.latent, dtype=dtype),
        }

    classifier_step = adam_step("classifier", partial(classifier_loss, nets=nets))
    return lgm._replace(
        schedule=lambda hyper, t: [
            ("vae", int(hyper.vae_steps)),
            ("classifier", int(hyper.classifier_steps)),
        ],
        steps={**lgm.steps, "classifier": classifier_step},
        begin_task=begin_task,
        draw=draw,
        classifier_loss=None,  # it sees no real examples
    )
