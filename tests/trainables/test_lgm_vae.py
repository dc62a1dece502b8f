"""LGM-VAE: its equations once more with ``torch.distributions`` and ``torch.optim``; its traps."""

from functools import partial
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence
from torch.func import grad
from torch.utils._pytree import tree_leaves, tree_map

from tests.conftest import EXACTLY, F64, first_tasks, generator, tiny
from tests.trainables.lgm_acgan_in_torch import forward as perceptron
from tests.trainables.lgm_acgan_in_torch import lane, masked_cross_entropy
from trainables import lgm_vae
from trainables.engine import vae as vaes
from trainables.engine.learn import learn
from trainables.engine.method import Batch, Method

TERMS = ("divergence", "encoder_rehearsal", "decoder_rehearsal", "classifier_rehearsal")
PHASES = {"V": "vae", "c": "classifier"}
SHAPE = tiny(lgm_vae)
# Every term on, every coefficient and rate different from the others.
HYPER = lgm_vae.Hyper(
    vae_lr=0.011,
    vae_beta1=0.3,
    classifier_lr=0.017,
    classifier_beta1=0.5,
    classifier_beta2=0.99,
    divergence=0.7,
    encoder_rehearsal=3.0,
    decoder_rehearsal=5.0,
    classifier_rehearsal=0.6,
    learn_prior=True,
    label_smoothing=0.1,
)


class Scene(NamedTuple):
    """A lane in the middle of a task, some time after its snapshot, and its next steps."""

    method: Method
    nets: vaes.Nets
    state: vaes.State
    steps: list[tuple[str, Batch, dict[str, torch.Tensor]]]  # phase, minibatch, noise


def shaken(tree, seed):
    g = generator(seed)
    return tree_map(lambda p: p + 0.2 * torch.randn(p.shape, generator=g, dtype=F64), tree)


def scene(stream, turns="Vc", t=1, hyper=HYPER, shape=SHAPE) -> Scene:
    method, task = lgm_vae.build(stream.problem, shape), stream.batch(t)
    state = method.begin_task(
        method.init(generator(0)), method.init(generator(1)), task, lane(hyper)
    )
    state = state._replace(vae=shaken(state.vae, 5), frozen=shaken(state.vae, 6))
    rows = torch.randint(len(task.y), (len(turns), shape.batch_size), generator=generator(3))
    g, steps = generator(4), []
    for turn, i in zip(turns, rows, strict=True):
        noise = tree_map(lambda leaf: leaf[0], method.draw(g, PHASES[turn], 1, task, hyper))
        steps.append((PHASES[turn], task._replace(x=task.x[i], y=task.y[i]), noise))
    return Scene(method, vaes.networks(stream.problem, shape), state, steps)


# ---- the method once more, in plain torch --------------------------------------------------------


def forward(params, *inputs):
    return perceptron(params, torch.cat(inputs, 1), 0.0)


def normal(params, *inputs) -> Normal:
    mean, log_variance = forward(params, *inputs).chunk(2, 1)
    return Normal(mean, log_variance.exp().sqrt())


def code(y):
    return F.one_hot(y, 6).to(F64)


def decoded(vae, y, unit):
    prior = normal(vae.prior, code(y))
    return forward(vae.decoder, prior.mean + unit * prior.stddev, code(y))


def vae_terms(vae, state, batch, noise):
    posterior = normal(vae.encoder, batch.x, code(batch.y))
    z = posterior.mean + noise["posterior"] * posterior.stddev
    terms = {
        "reconstruction": F.mse_loss(forward(vae.decoder, z, code(batch.y)), batch.x),
        "divergence": kl_divergence(posterior, normal(vae.prior, code(batch.y))).mean(),
    }
    if batch.learned.any():
        y, frozen = noise["y_old"], state.frozen
        x_old = decoded(frozen, y, noise["prior_old"])
        old = normal(frozen.encoder, x_old, code(y))
        z_old = old.mean + noise["posterior_old"] * old.stddev
        now, then = (forward(v.encoder, x_old, code(y)) for v in (vae, frozen))
        terms["encoder_rehearsal"] = F.mse_loss(now, then)
        now, then = (forward(v.decoder, z_old, code(y)) for v in (vae, frozen))
        terms["decoder_rehearsal"] = F.mse_loss(now, then)
    return terms


def classifier_terms(classifier, state, batch, noise):
    s, y = HYPER.label_smoothing, noise["y_replay"]
    on_real = forward(classifier, batch.x)
    terms = {"classifier": masked_cross_entropy(on_real, batch.y, batch.rivals[batch.y], s)}
    if batch.learned.any():
        on_replay = forward(classifier, decoded(state.vae, y, noise["prior_replay"]).detach())
        terms["classifier_rehearsal"] = masked_cross_entropy(on_replay, y, batch.rivals[y], s)
    return terms


TERMS_OF = {"vae": vae_terms, "classifier": classifier_terms}


def total(hyper, terms, without=()):
    weights = hyper._asdict() | {"reconstruction": 1.0, "classifier": 1.0}
    kept = [weights[name] * term for name, term in terms.items() if name not in without]
    return torch.stack(kept).sum()


def in_plain_torch(at: Scene, hyper, without=()):
    """Both players after the scene's steps, with ``torch.optim.Adam``."""
    state, optimizers = at.state, {}
    for player in PHASES.values():
        leaves = tree_map(lambda p: p.clone().requires_grad_(), getattr(state, player))
        state = state._replace(**{player: leaves})
        lr, b1, b2 = (getattr(hyper, f"{player}_{n}") for n in ("lr", "beta1", "beta2"))
        optimizers[player] = torch.optim.Adam(tree_leaves(leaves), lr=lr, betas=(b1, b2))
    if not hyper.learn_prior:
        for p in tree_leaves(state.vae.prior):
            p.requires_grad_(False)
    for phase, batch, noise in at.steps:
        optimizers[phase].zero_grad()
        terms = TERMS_OF[phase](getattr(state, phase), state, batch, noise)
        total(hyper, terms, without).backward()
        optimizers[phase].step()
    return tree_map(torch.Tensor.detach, (state.vae, state.classifier))


def by_method(at: Scene, hyper):
    state, logs = at.state, []
    for phase, batch, noise in at.steps:
        state, log = at.method.steps[phase](state, batch, lane(hyper), noise)
        logs.append(log)
    return state, logs


# ---- its equations -------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["blobs", "blobs_by_task"])
def test_losses_and_gradients_are_those_of_plain_torch(scenario, request):
    at = scene(request.getfixturevalue(scenario))
    losses = {
        "vae": partial(vaes.vae_loss, nets=at.nets),
        "classifier": partial(vaes.classifier_loss, nets=at.nets),
    }
    for phase, batch, noise in at.steps:
        before = getattr(at.state, phase)

        def loss(params, phase=phase, batch=batch, noise=noise):
            return losses[phase](params, at.state, batch, lane(HYPER), noise)

        params = tree_map(lambda p: p.clone().requires_grad_(), before)
        expected = TERMS_OF[phase](params, at.state, batch, noise)
        slopes, terms = grad(loss, has_aux=True)(before)
        torch.testing.assert_close(terms, {k: v.detach() for k, v in expected.items()})
        torch.testing.assert_close(loss(before)[0], total(HYPER, expected).detach())
        by_autograd = torch.autograd.grad(total(HYPER, expected), tree_leaves(params))
        torch.testing.assert_close(tree_leaves(slopes), list(by_autograd))


@pytest.mark.parametrize("learn_prior", [True, False])
@pytest.mark.parametrize("t", [0, 1])
@pytest.mark.parametrize("turns", ["V", "c", "Vc", "VVc"])
def test_steps_are_those_of_plain_torch(turns, t, learn_prior, blobs):
    hyper = HYPER._replace(learn_prior=learn_prior)
    at = scene(blobs, turns * 6, t, hyper)
    state, logs = by_method(at, hyper)
    found = state.vae, state.classifier
    torch.testing.assert_close(found, in_plain_torch(at, hyper), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(state.frozen, at.state.frozen, **EXACTLY)
    rehearsed = [v for log in logs for k, v in log.items() if k.endswith("rehearsal")]
    assert all((term > 0) == (t > 0) for term in rehearsed)


@pytest.mark.parametrize("term", TERMS)
def test_a_coefficient_of_zero_removes_its_term(term, blobs):
    at = scene(blobs, "Vc" * 3)
    state, _ = by_method(at, HYPER._replace(**{term: 0.0}))
    without = in_plain_torch(at, HYPER, without=(term,))
    torch.testing.assert_close((state.vae, state.classifier), without, rtol=1e-9, atol=1e-9)
    with_it, _ = by_method(at, HYPER)  # and only then
    pairs = zip(tree_leaves((with_it.vae, with_it.classifier)), tree_leaves(without), strict=True)
    assert max((a - b).abs().max() for a, b in pairs) > 1e-4


# ---- rehearsal -----------------------------------------------------------------------------------


def test_nothing_has_drifted_right_after_the_snapshot(blobs):
    at = scene(blobs)
    begun = at.method.begin_task(at.state, at.state, blobs.batch(1), lane(HYPER))
    _, batch, noise = at.steps[0]
    _, terms = vaes.vae_loss(begun.vae, begun, batch, lane(HYPER), noise, at.nets)
    assert terms["encoder_rehearsal"] == terms["decoder_rehearsal"] == 0


@pytest.mark.parametrize("size", [1, 2, 64])
def test_rehearsal_is_a_mean_per_element(size, blobs):
    """A shift of all outputs by δ costs δ², whatever the batch."""
    at = scene(blobs, shape=SHAPE._replace(replay_batch_size=size))
    _, batch, noise = at.steps[0]
    for net, last, term in (("encoder", "b1", "encoder"), ("decoder", "b1", "decoder")):
        params = getattr(at.state.frozen, net)
        moved = at.state.frozen._replace(**{net: params | {last: params[last] + 0.3}})
        _, terms = vaes.vae_loss(moved, at.state, batch, lane(HYPER), noise, at.nets)
        expected = torch.tensor(0.09, dtype=F64)
        torch.testing.assert_close(terms[f"{term}_rehearsal"], expected)


@pytest.mark.parametrize("order", ["vae_first", "classifier_first", "interleaved"])
@pytest.mark.parametrize("seen", [True, False])
def test_replayed_classes(order, seen, blobs):
    method, task = lgm_vae.build(blobs.problem, SHAPE), blobs.batch(1)
    hyper = lgm_vae.Hyper(order=order, replay_seen=seen)
    y = method.draw(generator(0), "classifier", 50, task, hyper)["y_replay"]
    # A decoder that has not met the current classes cannot replay them.
    expected = task.seen if seen and order != "classifier_first" else task.learned
    counts = (y[:, :, None] == torch.arange(6)).sum(1)  # (S, C)
    assert (counts == SHAPE.replay_batch_size // int(expected.sum()) * expected).all()
    y = method.draw(generator(0), "vae", 50, task, hyper)["y_old"]
    assert task.learned[y].all()


@pytest.mark.parametrize(("scenario", "compete"), [("blobs", True), ("blobs_by_task", False)])
def test_current_logits_compete_with_replayed_classes_in_the_class_scenario(
    scenario, compete, request
):
    at = scene(request.getfixturevalue(scenario))
    _, batch, noise = at.steps[1]

    def replay(classifier):
        loss = vaes.classifier_loss(classifier, at.state, batch, lane(HYPER), noise, at.nets)
        return loss[1]["classifier_rehearsal"]

    slope = grad(replay)(at.state.classifier)["b1"]  # of the output layer: one a logit
    assert slope[batch.learned].all()
    assert slope[batch.current].any() == compete
    assert not slope[~batch.seen].any()


# ---- the prior -----------------------------------------------------------------------------------


def test_the_prior_starts_as_the_unit_gaussian_and_moves_only_if_it_is_learned(blobs):
    method = lgm_vae.build(blobs.problem, SHAPE)
    state, y = method.init(generator(0)), torch.arange(6)
    nets = vaes.networks(blobs.problem, SHAPE)
    assert not any(part.any() for part in vaes.prior_of(nets, state.vae, y))
    for learned in (True, False):
        hyper = HYPER._replace(learn_prior=learned)
        at = scene(blobs, "V" * 5, hyper=hyper)
        moved, _ = by_method(at._replace(state=state), hyper)
        prior = vaes.prior_of(nets, moved.vae, y)
        assert all(bool(part.any()) == learned for part in prior)


def test_samples_come_by_way_of_the_prior_and_have_the_shape_of_inputs(blobs):
    at = scene(blobs)
    method = lgm_vae.build(blobs.problem._replace(input_shape=(2, 2, 2)), SHAPE)
    y, z = torch.tensor([0, 3, 3, 5]), torch.randn(4, SHAPE.latent, dtype=F64)
    assert method.sample is not None
    samples = method.sample(at.state, y, z)
    assert samples.shape == (4, 2, 2, 2)
    torch.testing.assert_close(samples.flatten(1), decoded(at.state.vae, y, z))


# ---- tasks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [True, False])
def test_the_start_of_a_task(reset, blobs):
    at = scene(blobs, "Vc")
    worn, _ = by_method(at, HYPER)
    fresh = at.method.init(generator(8))
    hyper = lane(HYPER._replace(reset_classifier=reset))
    begun = at.method.begin_task(worn, fresh, blobs.batch(2), hyper)
    expected = fresh.classifier if reset else worn.classifier
    torch.testing.assert_close(begun.classifier, expected, **EXACTLY)
    torch.testing.assert_close((begun.vae, begun.frozen), (worn.vae, worn.vae), **EXACTLY)
    assert not any(leaf.any() for leaf in (*begun.vae_moments, *begun.classifier_moments))


def test_orders():
    hyper = lgm_vae.Hyper(order="vae_first", vae_steps=3, classifier_steps=2)
    assert vaes.schedule(hyper, 0) == [("vae", 3), ("classifier", 2)]
    with pytest.raises(ValueError, match=r"'vae_first', 'classifier_first' or 'interleaved'"):
        vaes.schedule(hyper._replace(order="gan_first"), 0)


def test_images_are_learned_like_their_pixels(blobs):
    at, method = scene(blobs), lgm_vae.build(blobs.problem._replace(input_shape=(2, 2, 2)), SHAPE)
    pictures = [(p, b._replace(x=b.x.reshape(-1, 2, 2, 2)), n) for p, b, n in at.steps]
    flat, _ = by_method(at, HYPER)
    ours, _ = by_method(at._replace(method=method, steps=pictures), HYPER)
    torch.testing.assert_close(ours, flat, **EXACTLY)
    (_, picture, _), (_, batch, _) = pictures[0], at.steps[0]
    torch.testing.assert_close(
        method.predict(ours, picture.x), at.method.predict(ours, batch.x), **EXACTLY
    )


def test_replay_keeps_what_fine_tuning_forgets(blobs):
    stream, shape = first_tasks(blobs, 2), lgm_vae.Shape("perceptron", 4, 32, 1, 32, 1, 16, 16)
    hyper = lgm_vae.Hyper(
        order="vae_first", vae_steps=80, classifier_steps=120, vae_lr=1e-2, classifier_lr=1e-2
    )
    off = hyper._replace(classifier_rehearsal=0.0)
    with_replay, without = learn(
        lgm_vae.build(stream.problem, shape), stream, [(hyper, 0), (off, 0)]
    )
    assert with_replay.accuracy[1].min() > 0.9
    assert without.accuracy[1, 0] < 0.6
