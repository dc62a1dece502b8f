"""LGM-AE: its autoencoder against plain torch; the memory inside is LGM-VAE's."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._pytree import tree_leaves, tree_map

from tests.conftest import EXACTLY, F64, first_tasks, generator, tiny
from tests.trainables.lgm_acgan_in_torch import forward, lane, masked_cross_entropy
from trainables import lgm_ae, lgm_vae
from trainables.engine import vae
from trainables.engine.learn import learn
from trainables.engine.optim import moments

SHAPE = tiny(lgm_ae)
TERMS = ("autoencoder_rehearsal", "code_rehearsal", "code_classification")
HYPER = lgm_ae.Hyper(
    autoencoder_lr=0.011,
    autoencoder_beta1=0.3,
    autoencoder_beta2=0.95,
    autoencoder_rehearsal=3.0,
    code_rehearsal=0.7,
    use_code_classification=True,
    code_classification=0.4,
)


def shaken(tree, seed):
    g = generator(seed)
    return tree_map(lambda p: p + 0.2 * torch.randn(p.shape, generator=g, dtype=F64), tree)


def scene(stream, t=1, steps=6):
    """Some time after the snapshot: method, nets, state, and the autoencoder's next steps."""
    method, task = lgm_ae.build(stream.problem, SHAPE), stream.batch(t)
    state = method.begin_task(
        method.init(generator(0)), method.init(generator(1)), task, lane(HYPER)
    )
    memory = state.memory._replace(frozen=shaken(state.memory.frozen, 6))
    state = state._replace(autoencoder=shaken(state.autoencoder, 5), memory=memory)
    rows = torch.randint(len(task.y), (steps, SHAPE.batch_size), generator=generator(3))
    drawn = method.draw(generator(4), "autoencoder", steps, task, HYPER)
    batches = [task._replace(x=task.x[i], y=task.y[i]) for i in rows]
    noises = [{name: leaf[s] for name, leaf in drawn.items()} for s in range(steps)]
    return method, lgm_ae.networks(stream.problem, SHAPE), state, batches, noises


# ---- the autoencoder once more, in plain torch ---------------------------------------------------


def terms_in_torch(net, nets, state, batch, noise):
    def code(x):
        return forward(net.encoder, x, 0.0)

    def drawn(h, net=net):
        return forward(net.decoder, h, 0.0)

    h_old = vae.generate(nets.memory, state.memory.frozen, noise["prior_old"], noise["y_old"])
    x_old = drawn(h_old, state.frozen)
    logits = forward(state.memory.classifier, code(batch.x), 0.0)
    learned = bool(batch.learned.any())
    return {
        "autoencoder": F.mse_loss(drawn(code(batch.x)), batch.x),
        "autoencoder_rehearsal": F.mse_loss(drawn(code(x_old)), x_old) * learned,
        "code_rehearsal": F.mse_loss(code(x_old), h_old) * learned,
        "code_classification": masked_cross_entropy(logits, batch.y, batch.rivals[batch.y]),
    }


def in_plain_torch(at, hyper, without=()):
    _, nets, state, batches, noises = at
    net = tree_map(lambda p: p.clone().requires_grad_(), state.autoencoder)
    rates = hyper.autoencoder_lr, (hyper.autoencoder_beta1, hyper.autoencoder_beta2)
    adam = torch.optim.Adam(tree_leaves(net), lr=rates[0], betas=rates[1])
    weights = hyper._asdict() | {"autoencoder": 1.0}
    for batch, noise in zip(batches, noises, strict=True):
        terms = terms_in_torch(net, nets, state, batch, noise)
        adam.zero_grad()
        sum(weights[k] * term for k, term in terms.items() if k not in without).backward()
        adam.step()
    return tree_map(torch.Tensor.detach, net)


def by_method(at, hyper):
    method, _, state, batches, noises = at
    logs = []
    for batch, noise in zip(batches, noises, strict=True):
        state, log = method.steps["autoencoder"](state, batch, lane(hyper), noise)
        logs.append(log)
    return state, logs


@pytest.mark.parametrize("t", [0, 1])
def test_steps_are_those_of_plain_torch(t, blobs):
    at = scene(blobs, t)
    state, logs = by_method(at, HYPER)
    expected = in_plain_torch(at, HYPER)
    torch.testing.assert_close(state.autoencoder, expected, rtol=1e-9, atol=1e-9)
    _, nets, before, batches, noises = at
    first = terms_in_torch(before.autoencoder, nets, before, batches[0], noises[0])
    torch.testing.assert_close(logs[0], first)
    torch.testing.assert_close((state.frozen, state.memory), (before.frozen, before.memory))
    assert all((log["code_rehearsal"] > 0) == (t > 0) for log in logs)


@pytest.mark.parametrize("term", TERMS)
def test_a_coefficient_of_zero_removes_its_term(term, blobs):
    at = scene(blobs)
    state, _ = by_method(at, HYPER._replace(**{term: 0.0}))
    without = in_plain_torch(at, HYPER, without=(term,))
    torch.testing.assert_close(state.autoencoder, without, rtol=1e-9, atol=1e-9)
    with_it, _ = by_method(at, HYPER)  # and only then
    pairs = zip(tree_leaves(with_it.autoencoder), tree_leaves(without), strict=True)
    assert max((a - b).abs().max() for a, b in pairs) > 1e-4


def test_classification_counts_only_if_used(blobs):
    at = scene(blobs)
    state, logs = by_method(at, HYPER._replace(use_code_classification=False))
    without = in_plain_torch(at, HYPER, without=("code_classification",))
    torch.testing.assert_close(state.autoencoder, without, rtol=1e-9, atol=1e-9)
    assert all(log["code_classification"] == 0 for log in logs)


# ---- the memory ----------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["vae", "classifier"])
def test_the_memory_is_lgm_vae_on_the_codes(phase, blobs):
    method, _, state, batches, _ = scene(blobs)
    problem, shape = lgm_ae.on_codes(blobs.problem, SHAPE)
    inner = lgm_vae.build(
        problem, lgm_vae.Shape(*(getattr(shape, f) for f in lgm_vae.Shape._fields))
    )
    noise = tree_map(
        lambda leaf: leaf[0], method.draw(generator(7), phase, 1, blobs.batch(1), HYPER)
    )
    batch = batches[0]
    after, terms = method.steps[phase](state, batch, lane(HYPER), noise)
    coded = batch._replace(x=forward(state.autoencoder.encoder, batch.x, 0.0))
    memory, expected = inner.steps[phase](state.memory, coded, lane(HYPER), noise)
    torch.testing.assert_close((after.memory, terms), (memory, expected))
    torch.testing.assert_close(after.autoencoder, state.autoencoder, **EXACTLY)
    torch.testing.assert_close(method.predict(after, batch.x), inner.predict(memory, coded.x))


def test_samples_are_decoded_and_pictures_reconstructed(blobs):
    method, _, state, batches, _ = scene(blobs)
    y, z = torch.tensor([0, 3]), torch.randn(2, SHAPE.latent, dtype=F64)
    nets = lgm_ae.networks(blobs.problem, SHAPE)
    assert method.sample and method.reconstruct
    h = vae.generate(nets.memory, state.memory.vae, z, y)
    torch.testing.assert_close(
        method.sample(state, y, z), forward(state.autoencoder.decoder, h, 0.0)
    )
    x = batches[0].x
    code = forward(state.autoencoder.encoder, x, 0.0)
    torch.testing.assert_close(
        method.reconstruct(state, x), forward(state.autoencoder.decoder, code, 0.0)
    )


def test_the_start_of_a_task_takes_the_snapshot_and_moves_nothing(blobs):
    method, _, worn, _, _ = scene(blobs)
    begun = method.begin_task(worn, method.init(generator(8)), blobs.batch(2), lane(HYPER))
    torch.testing.assert_close(
        (begun.autoencoder, begun.frozen), (worn.autoencoder, worn.autoencoder), **EXACTLY
    )
    torch.testing.assert_close(begun.memory.frozen, worn.memory.vae, **EXACTLY)
    torch.testing.assert_close(begun.autoencoder_moments, moments(worn.autoencoder), **EXACTLY)


def test_the_autoencoder_comes_first():
    hyper = lgm_ae.Hyper(autoencoder_steps=3, vae_steps=2, classifier_steps=1)
    method = lgm_ae.build(lgm_ae.Problem((8,), 6), SHAPE)
    assert method.schedule(hyper, 0) == [("autoencoder", 3), ("vae", 2), ("classifier", 1)]
    swapped = hyper._replace(order="classifier_first")
    assert method.schedule(swapped, 0) == [("autoencoder", 3), ("classifier", 1), ("vae", 2)]


def test_rehearsal_keeps_what_the_autoencoder_could_draw(blobs):
    stream = first_tasks(blobs, 2)
    shape = lgm_ae.Shape("perceptron", 4, 32, 1, 4, 32, 1, 32, 1, 16, 16)
    hyper = lgm_ae.Hyper(
        autoencoder_steps=150, vae_steps=150, classifier_steps=80,
        autoencoder_lr=1e-2, vae_lr=1e-2, classifier_lr=1e-2, autoencoder_rehearsal=3.0,
    )  # fmt: skip
    off = hyper._replace(autoencoder_rehearsal=0.0, code_rehearsal=0.0)
    method = lgm_ae.build(stream.problem, shape)
    with_it, without = learn(method, stream, [(hyper, 0), (off, 0)])
    assert with_it.accuracy[1].min() > 0.8
    x = stream.tasks[0].validation.x
    assert method.reconstruct
    kept, lost = (
        (method.reconstruct(walk.state, x) - x).square().mean() for walk in (with_it, without)
    )
    assert kept < 0.7 * lost
