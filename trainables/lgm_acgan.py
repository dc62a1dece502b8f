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

every n-th of which moves the generator, where it is told the classes' attributes also by

                − w9 E D(x̂)                                    creativity adversarial    (9)
                + w10 E KL( c(x̂) ‖ U )                          creativity entropy        (10)

with x̂ of hallucinated classes, between two seen ones, and classifier steps,

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
- A class enters G as one-hot code, or by its attributes: a learned embedding before a linear layer
  is the same function.
- (10) is each example's own distance from the uniform distribution, over the classes seen; the
  source mixed the examples of a batch (CIZSL, Elhoseiny & Elfeki 2019, has them apart).
- Steps are counted, not epochs; gradients are not clipped; Adam everywhere, rebuilt at each task.
"""

from typing import NamedTuple

import torch

from trainables.engine import gan
from trainables.engine.gan import Nets, State
from trainables.engine.losses import (
    cross_entropy,
    gradient_penalty,
    prototype_distance,
    weighted,
)
from trainables.engine.method import Batch, Method, Params, Problem, Scalar
from trainables.engine.nets import classifier, decoder, encoder

__all__ = ["Hyper", "Shape", "State", "build"]


class Shape(NamedTuple):  # static: trials are fused when these agree
    network: str = "perceptron"  # or "convolutional", for images and feature maps
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
    use_creativity: Scalar = False  # whether (9) and (10) are in the loss, with attributes in G
    creativity_adversarial: Scalar = 0.01  # w9, if so
    creativity_entropy: Scalar = 0.01  # w10, if so
    label_smoothing: Scalar = 0.0  # of the classifier's targets, in [0, 1)
    reset_critic: Scalar = False  # fresh critic at the start of a task
    reset_classifier: Scalar = False


def networks(problem: Problem, shape: Shape) -> Nets:
    """G: [z | code] -> x, D and d: x -> (1 + C), c: x -> C."""
    network, size, codes = shape.network, problem.input_shape, problem.codes
    g = shape.latent + codes.shape[1], shape.generator_hidden, shape.generator_layers
    d = shape.critic_hidden, shape.critic_layers, 1 + problem.classes
    c = shape.classifier_hidden, shape.classifier_layers
    return Nets(
        decoder(network, *g, size, slope=0.01, dtype=problem.dtype),
        encoder(network, size, *d, dtype=problem.dtype),
        classifier(network, problem, size, *c),
        codes,
    )


def critic_loss(critic: Params, state: State, batch: Batch, hyper: Hyper, noise, nets: Nets):
    """The sum of (1), (2) and (3), and its terms."""
    x = batch.x.flatten(1)
    fake = gan.generate(nets, state.generator, noise["z_critic"], batch.y)
    real_out, fake_out = nets.critic.apply(critic, torch.cat([x, fake])).chunk(2)
    value = lambda q: nets.critic.apply(critic, q)[:, 0]  # noqa: E731
    terms = {
        "critic_adversarial": fake_out[:, 0].mean() - real_out[:, 0].mean(),
        "critic_classification": cross_entropy(real_out[:, 1:], batch.y, batch.current),
        "gradient_penalty": gradient_penalty(value, x, fake, noise["mix"]),
    }
    return weighted(terms, hyper), terms


def generator_loss(generator: Params, state: State, batch: Batch, hyper: Hyper, noise, nets: Nets):
    """The sum of (4) to (7), of (9) and (10) where there are attributes, and its terms."""
    fake, replayed = gan.generate_both(nets, generator, batch, noise)
    out = nets.critic.apply(state.critic, fake)
    value = lambda x, code: nets.critic.apply(state.critic, x)[:, 0]  # noqa: E731
    drift = prototype_distance(fake, batch.y, state.prototypes)
    terms = {
        "generator_adversarial": -out[:, 0].mean(),
        "generator_classification": cross_entropy(out[:, 1:], batch.y, batch.current),
        "generator_prototype": drift * (hyper.use_prototypes > 0),
        "generator_rehearsal": gan.rehearsal(replayed, state.frozen, batch, noise, nets),
        **gan.creativity(value, generator, state, batch, hyper, noise, nets),
    }
    return weighted(terms, hyper), terms


def build(problem: Problem, shape: Shape) -> Method:
    nets = networks(problem, shape)
    return gan.build(problem, shape, nets, critic_loss, generator_loss)
