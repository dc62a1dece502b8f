"""Latent generative memory with a conditional GAN (LGM-cGAN): a critic that is told the class.

Three players on the features x of a fixed embedder: a generator G(z, y), a critic D(x, y) and a
classifier c. Ḡ is G as it was when the task began; S and L are the classes seen (this task's
included) and learned (earlier tasks'). A task has adversarial steps,

    critic      − w2 E D(x,y) + w2 E D(G(z,y),y)               critic adversarial        (1)
                + w3 E (‖∇D(x̂,y)‖ − 1)²                        gradient penalty          (2)
    generator   − w1 E D(G(z,y),y)                             generator adversarial     (3)
                + w4 mean_{k∈y} mean_d (E_z G(z,k) − x̄_k)²      generator prototype       (4)
                + w5 E_{y~L} mean_d (G(z,y) − Ḡ(z,y))²          generator rehearsal       (5)

every n-th of which moves the generator, where it is told the classes' attributes also by

                − w7 E D(x̂,a)                                  creativity adversarial    (7)
                + w8 E KL( c(x̂) ‖ U )                           creativity entropy        (8)

with x̂ and a of hallucinated classes, between two seen ones, and classifier steps,

    classifier  CE(c(x), y) + w6 E_{y~S or L} CE(c(G(z,y)), y)  classifier rehearsal      (6)

with CE over all that compete (seen, in the class-incremental scenario). x̄_k is the mean training
example of class k. The critic takes the class's code beside x, or projects it,

    D(x, y) = ⟨w + V code(y), φ(x)⟩ + b                         projection

with φ its last hidden layer.

Source: I. Skorokhodov's joint GAN trainer of 2020 (universome/class-norm, commits d672621 to
aa0641e), which never was part of its continual loop; that loop is LGM-AC-GAN's here. (2) Gulrajani
et al. 2017, (5) MeRGAN, Wu et al. 2018, projection Miyato & Koyama 2018.
Differs from the source:
- All that differs in LGM-AC-GAN of the loop that both share.
- (4) compares with the classes of the current task; the source had all classes at once.
- The projection is ours; its critic took a learned embedding beside x, which before a linear layer
  is the same function as the one-hot code.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.engine import gan
from trainables.engine.errors import unknown
from trainables.engine.gan import Nets, State
from trainables.engine.losses import gradient_penalty, prototype_distance, weighted
from trainables.engine.method import Batch, Method, Params, Problem, Scalar
from trainables.engine.nets import Net, classifier, decoder, encoder, he

__all__ = ["Hyper", "Shape", "State", "build"]

CONDITIONS = ("concatenation", "projection")


class Shape(NamedTuple):  # static: trials are fused when these agree
    network: str = "perceptron"  # or "convolutional", for images and feature maps
    condition: str = "concatenation"  # of the critic, or "projection"
    latent: int = 32  # size of z
    generator_hidden: int = 128
    generator_layers: int = 2  # hidden layers
    critic_hidden: int = 128
    critic_layers: int = 1
    classifier_hidden: int = 128
    classifier_layers: int = 1
    batch_size: int = 64
    replay_batch_size: int = 64  # of (5) and (6)


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
    critic_adversarial: Scalar = 1.0  # w2
    gradient_penalty: Scalar = 10.0  # w3
    use_prototypes: Scalar = True  # whether (4) is in the loss
    generator_prototype: Scalar = 5.0  # w4, if so
    generator_rehearsal: Scalar = 30.0  # w5
    classifier_rehearsal: Scalar = 1.0  # w6
    replay_seen: Scalar = False  # (6) replays the seen classes, else the learned ones
    use_creativity: Scalar = False  # whether (7) and (8) are in the loss, with attributes in G
    creativity_adversarial: Scalar = 0.01  # w7, if so
    creativity_entropy: Scalar = 0.01  # w8, if so
    label_smoothing: Scalar = 0.0  # of the classifier's targets, in [0, 1)
    reset_critic: Scalar = False  # fresh critic at the start of a task
    reset_classifier: Scalar = False


def networks(problem: Problem, shape: Shape) -> Nets:
    """G: [z | code] -> x, D: [x | code] -> 1, c: x -> C."""
    network, size, codes = shape.network, problem.input_shape, problem.codes
    g = shape.latent + codes.shape[1], shape.generator_hidden, shape.generator_layers
    c = shape.classifier_hidden, shape.classifier_layers
    return Nets(
        decoder(network, *g, size, slope=0.01, dtype=problem.dtype),
        conditional_critic(problem, shape),
        classifier(network, problem, size, *c),
        codes,
    )


def conditional_critic(problem: Problem, shape: Shape) -> Net:
    """D: [x | code] ``(B, D + K)`` -> ``(B, 1)``.

    Raises:
        ValueError: unknown ``shape.condition``.
    """
    told, hidden, layers = problem.codes.shape[1], shape.critic_hidden, shape.critic_layers
    reads = shape.network, problem.input_shape, hidden
    if shape.condition not in CONDITIONS:
        raise unknown("condition", shape.condition, CONDITIONS)
    if shape.condition == "concatenation":
        return encoder(*reads, layers, 1, condition=told, dtype=problem.dtype)
    phi = encoder(*reads, layers - (shape.network == "perceptron"), hidden, dtype=problem.dtype)

    def init(generator: torch.Generator) -> Params:
        head = {
            "class": he(generator, (told, hidden), hidden, problem.dtype),  # V
            "all": he(generator, (hidden,), hidden, problem.dtype),  # w
            "bias": torch.zeros(1, dtype=problem.dtype),
        }
        return phi.init(generator) | head

    def apply(params: Params, both: Tensor) -> Tensor:
        x, code = both.split((both.shape[-1] - told, told), -1)
        weights = params["all"] + code @ params["class"]
        features = F.relu(phi.apply(params, x))
        return (weights * features).sum(-1, keepdim=True) + params["bias"]

    return Net(init, apply)


def value(nets: Nets, critic: Params, x: Tensor, code: Tensor) -> Tensor:
    """D(x, ·) of examples under the codes of their classes, ``(B,)``."""
    return nets.critic.apply(critic, torch.cat([x, code], -1))[:, 0]


def critic_loss(critic: Params, state: State, batch: Batch, hyper: Hyper, noise, nets: Nets):
    """The sum of (1) and (2), and both terms."""
    x = batch.x.flatten(1)
    code = nets.codes[batch.y]
    fake = gan.generate(nets, state.generator, noise["z_critic"], batch.y)
    both = value(nets, critic, torch.cat([x, fake]), torch.cat([code, code]))
    on_real, on_fake = both.chunk(2)
    told = lambda q: value(nets, critic, q, code)  # noqa: E731
    terms = {
        "critic_adversarial": on_fake.mean() - on_real.mean(),
        "gradient_penalty": gradient_penalty(told, x, fake, noise["mix"]),
    }
    return weighted(terms, hyper), terms


def generator_loss(generator: Params, state: State, batch: Batch, hyper: Hyper, noise, nets: Nets):
    """The sum of (3) to (5), of (7) and (8) where there are attributes, and its terms."""
    fake, replayed = gan.generate_both(nets, generator, batch, noise)
    real = lambda x, code: value(nets, state.critic, x, code)  # noqa: E731
    drift = prototype_distance(fake, batch.y, state.prototypes)
    terms = {
        "generator_adversarial": -real(fake, nets.codes[batch.y]).mean(),
        "generator_prototype": drift * (hyper.use_prototypes > 0),
        "generator_rehearsal": gan.rehearsal(replayed, state.frozen, batch, noise, nets),
        **gan.creativity(real, generator, state, batch, hyper, noise, nets),
    }
    return weighted(terms, hyper), terms


def build(problem: Problem, shape: Shape) -> Method:
    nets = networks(problem, shape)
    return gan.build(problem, shape, nets, critic_loss, generator_loss)
