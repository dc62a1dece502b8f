"""GenMem-VAE: it starts over, and learns from what it generates alone."""

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map

from tests.conftest import EXACTLY, F64, first_tasks, generator, tiny
from tests.trainables.lgm_acgan_in_torch import forward, lane, masked_cross_entropy
from trainables import genmem_vae
from trainables.engine import vae as vaes
from trainables.engine.learn import learn

SHAPE = tiny(genmem_vae)
HYPER = genmem_vae.Hyper(classifier_lr=0.01, classifier_beta2=0.99, label_smoothing=0.1)


@pytest.fixture
def method(blobs):
    return genmem_vae.build(blobs.problem, SHAPE)


def noise_of(method, phase, task):
    drawn = method.draw(generator(3), phase, 1, task, HYPER)
    return tree_map(lambda leaf: leaf[0], drawn)


@pytest.mark.parametrize("scenario", ["blobs", "blobs_by_task"])
def test_the_classifier_learns_from_generated_examples_alone(scenario, request):
    stream = request.getfixturevalue(scenario)
    method, task = genmem_vae.build(stream.problem, SHAPE), stream.batch(1)
    nets = vaes.networks(stream.problem, SHAPE)
    state, noise = method.init(generator(0)), noise_of(method, "classifier", task)
    y = noise["y"]
    x = vaes.generate(nets, state.vae, noise["prior"], y)
    params = {k: p.clone().requires_grad_() for k, p in state.classifier.items()}
    adam = torch.optim.Adam(params.values(), lr=0.01, betas=(0.9, 0.99))
    loss = masked_cross_entropy(forward(params, x, 0.0), y, task.rivals[y], 0.1)
    loss.backward()
    adam.step()
    for batch in (task, task._replace(x=task.x + 1)):  # whatever the real examples are
        after, terms = method.steps["classifier"](state, batch, lane(HYPER), noise)
        expected = {k: p.detach() for k, p in params.items()}
        torch.testing.assert_close(after.classifier, expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(terms, {"classifier": loss.detach()})
    assert set(y.tolist()) == set(task.seen.nonzero()[:, 0].tolist())


@pytest.mark.parametrize("vae", [True, False])
@pytest.mark.parametrize("classifier", [True, False])
def test_what_is_forgotten_at_the_start_of_a_task(vae, classifier, method, blobs):
    old, fresh = method.init(generator(0)), method.init(generator(1))
    old = old._replace(vae_moments=tree_map(torch.ones_like, old.vae_moments))
    hyper = lane(HYPER._replace(reset_vae=vae, reset_classifier=classifier))
    begun = method.begin_task(old, fresh, blobs.batch(1), hyper)
    torch.testing.assert_close(begun.vae, (fresh if vae else old).vae, **EXACTLY)
    expected = (fresh if classifier else old).classifier
    torch.testing.assert_close(begun.classifier, expected, **EXACTLY)
    torch.testing.assert_close(begun.frozen, old.vae, **EXACTLY)  # before it is forgotten
    assert not any(leaf.any() for leaf in begun.vae_moments)


def test_the_autoencoder_rehearses_what_its_snapshot_generates(method, blobs):
    """The loss is LGM-VAE's; from a fresh start rehearsal pulls towards the snapshot."""
    nets, task = vaes.networks(blobs.problem, SHAPE), blobs.batch(1)
    old, fresh = method.init(generator(0)), method.init(generator(1))
    state = method.begin_task(old, fresh, task, lane(HYPER))
    hyper = HYPER._replace(vae_lr=0.01, decoder_rehearsal=100.0)
    batch = task._replace(x=task.x[:8], y=task.y[:8])

    def drift(vae):
        noise = noise_of(method, "vae", task)
        return vaes.vae_loss(vae, state, batch, lane(hyper), noise, nets)[1]["decoder_rehearsal"]

    before, now = drift(state.vae), state
    for _ in range(100):
        now, _ = method.steps["vae"](now, batch, lane(hyper), noise_of(method, "vae", task))
    assert drift(now.vae) < 0.1 * before
    torch.testing.assert_close(now.frozen, old.vae, **EXACTLY)


def test_a_forgotten_autoencoder_remembers_by_rehearsal(blobs):
    stream = first_tasks(blobs, 2)
    shape = genmem_vae.Shape("perceptron", 4, 32, 1, 32, 1, 16, 32, 32)
    hyper = genmem_vae.Hyper(vae_steps=200, classifier_steps=80, vae_lr=1e-2, classifier_lr=1e-2)
    off = hyper._replace(decoder_rehearsal=0.0, encoder_rehearsal=0.0)
    method = genmem_vae.build(stream.problem, shape)
    with_it, without = learn(method, stream, [(hyper, 0), (off, 0)])
    assert with_it.accuracy[1].min() > 0.8
    assert without.accuracy[1, 0] < 0.6


def test_samples_have_the_shape_of_inputs(method, blobs):
    pictures = genmem_vae.build(blobs.problem._replace(input_shape=(2, 2, 2)), SHAPE)
    state, z = method.init(generator(0)), torch.randn(3, SHAPE.latent, dtype=F64)
    y = torch.tensor([0, 5, 2])
    assert method.sample and pictures.sample
    samples = pictures.sample(state, y, z)
    assert samples.shape == (3, 2, 2, 2)
    torch.testing.assert_close(samples.flatten(1), method.sample(state, y, z), **EXACTLY)
    assert method.schedule(HYPER, 0) == [("vae", 400), ("classifier", 300)]
    assert all(leaf.dtype == F64 for leaf in tree_leaves(state))
