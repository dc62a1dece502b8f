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
- A class enters a network as one-hot code, or by its attributes: a learned embedding before a
  linear layer is the same function.
- Steps are counted, not epochs; Adam everywhere, rebuilt at each task; one hidden layer and 128
  units where the source has three and 512.
"""

from functools import partial
from typing import NamedTuple

from trainables.engine import noise as draws
from trainables.engine import vae as vaes
from trainables.engine.losses import rehearsed_cross_entropy
from trainables.engine.method import Batch, Method, Params, Problem, Scalar
from trainables.engine.nets import Net, choose, classifier
from trainables.engine.optim import Moments, adam_step, moments
from trainables.engine.schedule import program
from trainables.engine.vae import Vae


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


class State(NamedTuple):
    vae: Vae
    classifier: Params  # c
    frozen: Vae  # the autoencoder when the task began
    vae_moments: Moments
    classifier_moments: Moments


class Nets(NamedTuple):
    vae: vaes.Nets
    classifier: Net


def networks(problem: Problem, shape: Shape) -> Nets:
    on, size = (shape.network, problem), problem.input_shape
    return Nets(
        vaes.networks(*on, size, shape.latent, shape.vae_hidden, shape.vae_layers),
        classifier(*on, size, shape.classifier_hidden, shape.classifier_layers),
    )


def classifier_loss(params: Params, state: State, batch: Batch, hyper: Hyper, noise, nets: Nets):
    """The classifier's loss on real data and (4), zero in the first task; and both terms."""
    y = noise["y_replay"]
    replayed = vaes.generate(nets.vae, state.vae, noise["prior_replay"], y)
    return rehearsed_cross_entropy(
        lambda x: nets.classifier.apply(params, x), batch, replayed, y,
        hyper.classifier_rehearsal, hyper.label_smoothing,
    )  # fmt: skip


def build(problem: Problem, shape: Shape) -> Method:
    nets = networks(problem, shape)

    def init(generator):
        vae, c = vaes.init(nets.vae, generator), nets.classifier.init(generator)
        return State(vae, c, vae, moments(vae), moments(c))

    def begin_task(state, fresh, task, hyper):
        return State(
            vae=state.vae,
            classifier=choose(hyper.reset_classifier > 0, fresh.classifier, state.classifier),
            frozen=state.vae,
            vae_moments=fresh.vae_moments,
            classifier_moments=fresh.classifier_moments,
        )

    def draw(generator, phase, steps, task, hyper):
        replayed, latent = shape.replay_batch_size, shape.latent
        if phase == "vae":
            size = shape.batch_size
            return vaes.draw(generator, steps, task, size, replayed, latent, problem.dtype)
        if phase == "classifier":
            seen = hyper.replay_seen and hyper.order != "classifier_first"
            among = draws.rehearsed(task, seen)
            return {
                "y_replay": draws.labels(generator, among, steps, replayed),
                "prior_replay": draws.normal(
                    generator, steps, replayed, latent, dtype=problem.dtype
                ),
            }
        return {}

    def sample(state, y, z):
        return vaes.generate(nets.vae, state.vae, z, y).unflatten(-1, problem.input_shape)

    return Method(
        init=init,
        schedule=schedule,
        steps={
            "vae": vaes.step(partial(vaes.loss, nets=nets.vae)),
            "classifier": adam_step("classifier", partial(classifier_loss, nets=nets)),
        },
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
