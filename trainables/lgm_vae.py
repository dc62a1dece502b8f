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
network of the class that starts as N(0, I); with ``learn_prior`` it is trained by (1). In code the
equations are ``vae_loss`` and ``classifier_loss`` of engine/vae.py.

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
- A class enters a network as one-hot code, or by its attributes: a learned embedding before a
  linear layer is the same function.
- Steps are counted, not epochs; Adam everywhere, rebuilt at each task; one hidden layer and 128
  units where the source has three and 512.
"""

from typing import NamedTuple

from trainables.engine import vae
from trainables.engine.method import Method, Problem, Scalar
from trainables.engine.vae import State

__all__ = ["Hyper", "Shape", "State", "build"]


class Shape(NamedTuple):  # static: trials are fused when these agree
    network: str = "perceptron"  # or "convolutional", for images and feature maps
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


def build(problem: Problem, shape: Shape) -> Method:
    return vae.build(problem, shape, vae.networks(problem, shape))
