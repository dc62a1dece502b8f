"""Latent generative memory on the codes of an autoencoder (LGM-AE), which is rehearsed as well.

Where the embedder of LGM is fixed, here it is learned: an autoencoder with encoder e and decoder d
gives codes h = e(x), and LGM-VAE lives on these (a conditional VAE with decoder p(h|z,y) and a
classifier c, see lgm_vae). A bar marks what was there when the task began; L are the classes of
earlier tasks; h̄ ~ p̄(h|z,ȳ) with ȳ ~ L is what the old memory generates, x̄ = d̄(h̄) what it stands
for. A task has autoencoder steps on

    E mean_d (d(e(x)) − x)²                                     autoencoder
    + w1 E mean_d (d(e(x̄)) − x̄)²                                autoencoder rehearsal   (1)
    + w2 E mean (e(x̄) − h̄)²                                     code rehearsal          (2)
    + w3 CE(c(e(x)), y)                                         code classification     (3)

and then the steps of LGM-VAE on h. (1) keeps what the autoencoder can draw; (2) keeps each code
where the memory and the classifier expect it; with w1 = w2 = 0 the autoencoder is trained
continually without any rehearsal. In (3) c is fixed and all that compete do.

Source: the slides of I. Skorokhodov's LGM project of February 2020 ("LGM via AutoEncoder":
rehearse autoencoder, generator and classifier), of which only the autoencoder was coded
(universome/class-norm, commits 097ce7f and 154b8d0); no paper.
Differs from the source:
- The generator on the codes is LGM-VAE's, the one that worked best on fixed features.
- (2) is ours: without it the codes drift away from the memory.
- The convolutional autoencoder halves images by 3 × 3 convolutions and ends without a sigmoid.
- Steps are counted, not epochs; Adam everywhere, rebuilt at each task (the source kept the
  autoencoder's).
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from trainables.engine import noise as draws
from trainables.engine import vae
from trainables.engine.losses import alignment, cross_entropy, weighted
from trainables.engine.method import Batch, Method, Params, Problem, Scalar
from trainables.engine.nets import Net, decoder, encoder
from trainables.engine.optim import Moments, adam_step, moments


class Shape(NamedTuple):  # static: trials are fused when these agree
    network: str = "perceptron"  # of the autoencoder, or "convolutional"
    code: int = 32  # size of h
    autoencoder_hidden: int = 128  # of encoder and decoder
    autoencoder_layers: int = 1
    latent: int = 32  # size of z
    vae_hidden: int = 128
    vae_layers: int = 1
    classifier_hidden: int = 128
    classifier_layers: int = 1
    batch_size: int = 64
    replay_batch_size: int = 64


class Hyper(NamedTuple):  # scalars: free to differ from lane to lane
    order: str = "vae_first"  # after the autoencoder; or "classifier_first", "interleaved"
    autoencoder_steps: Scalar = 300  # updates a task
    vae_steps: Scalar = 250
    classifier_steps: Scalar = 250
    autoencoder_lr: Scalar = 1e-3
    autoencoder_beta1: Scalar = 0.9
    autoencoder_beta2: Scalar = 0.999
    vae_lr: Scalar = 1e-3
    vae_beta1: Scalar = 0.0
    vae_beta2: Scalar = 0.9
    classifier_lr: Scalar = 1e-3
    classifier_beta1: Scalar = 0.0
    classifier_beta2: Scalar = 0.9
    autoencoder_rehearsal: Scalar = 1.0  # w1 >= 0, like all coefficients
    code_rehearsal: Scalar = 1.0  # w2
    use_code_classification: Scalar = False  # whether (3) is in the loss
    code_classification: Scalar = 0.1  # w3, if so
    divergence: Scalar = 0.32  # the rest as in lgm_vae
    encoder_rehearsal: Scalar = 1.0
    decoder_rehearsal: Scalar = 1.0
    classifier_rehearsal: Scalar = 1.0
    learn_prior: Scalar = False
    replay_seen: Scalar = False
    label_smoothing: Scalar = 0.0  # of the classifier's targets, in [0, 1)
    reset_classifier: Scalar = False


class Autoencoder(NamedTuple):
    encoder: Params  # x -> h
    decoder: Params  # h -> x


class State(NamedTuple):
    autoencoder: Autoencoder
    frozen: Autoencoder  # when the task began
    autoencoder_moments: Moments
    memory: vae.State  # LGM-VAE on the codes


class Nets(NamedTuple):
    encoder: Net
    decoder: Net
    memory: vae.Nets


def on_codes(problem: Problem, shape: Shape) -> tuple[Problem, Shape]:
    """What LGM-VAE is built for."""
    return problem._replace(input_shape=(shape.code,)), shape._replace(network="perceptron")


def networks(problem: Problem, shape: Shape) -> Nets:
    size, dtype = problem.input_shape, problem.dtype
    hidden, layers = shape.autoencoder_hidden, shape.autoencoder_layers
    return Nets(
        encoder(shape.network, size, hidden, layers, shape.code, dtype=dtype),
        decoder(shape.network, shape.code, hidden, layers, size, dtype=dtype),
        vae.networks(*on_codes(problem, shape)),
    )


def autoencoder_loss(
    autoencoder: Autoencoder, state: State, batch: Batch, hyper: Hyper, noise, nets: Nets
):
    """The reconstruction and (1) to (3), weighted, and these terms."""
    x, memory = batch.x.flatten(1), state.memory
    h_old = vae.generate(nets.memory, memory.frozen, noise["prior_old"], noise["y_old"])
    x_old = nets.decoder.apply(state.frozen.decoder, h_old)
    h, h_new = nets.encoder.apply(autoencoder.encoder, torch.cat([x, x_old])).split(
        (len(x), len(x_old))
    )
    drawn = nets.decoder.apply(autoencoder.decoder, torch.cat([h, h_new]))
    x_drawn, x_new = drawn.split((len(x), len(x_old)))
    used = hyper.use_code_classification > 0
    logits = nets.memory.classifier.apply(memory.classifier, h)
    error = (x_drawn - x).square().mean()
    terms = {
        "autoencoder_rehearsal": alignment(x_new, x_old, batch.learned),
        "code_rehearsal": alignment(h_new, h_old, batch.learned),
        "code_classification": cross_entropy(logits, batch.y, batch.rivals[batch.y]) * used,
    }
    return error + weighted(terms, hyper), {"autoencoder": error, **terms}


def build(problem: Problem, shape: Shape) -> Method:
    nets = networks(problem, shape)
    lgm = vae.build(*on_codes(problem, shape), nets.memory)

    def code(state: State, x: Tensor) -> Tensor:
        return nets.encoder.apply(state.autoencoder.encoder, x.flatten(1))

    def picture(state: State, h: Tensor) -> Tensor:
        x = nets.decoder.apply(state.autoencoder.decoder, h)
        return x.unflatten(-1, problem.input_shape)

    def init(generator):
        net = Autoencoder(nets.encoder.init(generator), nets.decoder.init(generator))
        return State(net, net, moments(net), lgm.init(generator))

    def begin_task(state, fresh, task, hyper):
        return State(
            autoencoder=state.autoencoder,
            frozen=state.autoencoder,
            autoencoder_moments=fresh.autoencoder_moments,
            memory=lgm.begin_task(state.memory, fresh.memory, task, hyper),
        )

    def on_code(step):
        """A step of the memory, on the codes of the batch."""

        def step_on_code(state, batch, hyper, noise):
            coded = batch._replace(x=code(state, batch.x))
            memory, terms = step(state.memory, coded, hyper, noise)
            return state._replace(memory=memory), terms

        return step_on_code

    def draw(generator, phase, steps, task, hyper):
        if phase != "autoencoder":
            return lgm.draw(generator, phase, steps, task, hyper)
        size, latent = shape.replay_batch_size, shape.latent
        return {
            "y_old": draws.labels(generator, draws.rehearsed(task), steps, size),
            "prior_old": draws.normal(generator, steps, size, latent, dtype=problem.dtype),
        }

    def sample(state, y, z):
        return picture(state, vae.generate(nets.memory, state.memory.vae, z, y))

    autoencoder_step = adam_step("autoencoder", partial(autoencoder_loss, nets=nets))
    return lgm._replace(
        init=init,
        schedule=lambda hyper, t: [
            ("autoencoder", int(hyper.autoencoder_steps)),
            *lgm.schedule(hyper, t),
        ],
        steps={"autoencoder": autoencoder_step}
        | {phase: on_code(step) for phase, step in lgm.steps.items()},
        predict=lambda state, x: lgm.predict(state.memory, code(state, x)),
        begin_task=begin_task,
        draw=draw,
        sample=sample,
        classifier_loss=None,  # the autoencoder is the embedder
        reconstruct=lambda state, x: picture(state, code(state, x)),
        carried=lambda state: (state.autoencoder, lgm.carried(state.memory)),
    )
