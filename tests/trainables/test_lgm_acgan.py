"""LGM-AC-GAN: its equations against plain torch, and the traps it avoids."""

import functools
import itertools

import numpy as np
import pytest
import torch
from torch.func import grad
from torch.utils._pytree import tree_leaves

from tests.conftest import EXACTLY, F64, clone, first_tasks, generator
from tests.trainables.lgm_acgan_in_torch import (
    CRITIC_TERMS,
    GENERATOR_TERMS,
    HYPER,
    PLAYERS,
    SHAPE,
    TERMS,
    TERMS_OF,
    Scene,
    by_method,
    g_of,
    in_plain_torch,
    lane,
    players,
    scene,
    total,
)
from trainables import lgm_acgan
from trainables.engine import gan
from trainables.engine.learn import learn
from trainables.engine.losses import prototype_distance

ORDERS = ("gan_first", "classifier_first", "interleaved")


@pytest.fixture
def middle(blobs):
    return scene(blobs)


# ---- its equations -------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["blobs", "blobs_by_task"])
def test_losses_and_gradients_are_those_of_plain_torch(scenario, request):
    at = scene(request.getfixturevalue(scenario))
    hyper, nets, state = lane(HYPER), at.nets, at.state

    def ours(phase, batch, noise, params):
        loss = {
            "critic": lgm_acgan.critic_loss,
            "generator": lgm_acgan.generator_loss,
            "classifier": gan.classifier_loss,
        }
        return loss[phase](params, state, batch, hyper, noise, nets)

    for step in at.steps:
        phase, before = step[0], getattr(state, step[0])
        loss = functools.partial(ours, *step)
        params = {k: p.clone().requires_grad_() for k, p in before.items()}
        expected = TERMS_OF[phase](params, state, step[1], HYPER, step[2])
        slopes, terms = grad(loss, has_aux=True)(before)
        torch.testing.assert_close(terms, {k: v.detach() for k, v in expected.items()})
        torch.testing.assert_close(loss(before)[0], total(HYPER, expected).detach())
        by_autograd = torch.autograd.grad(total(HYPER, expected), list(params.values()))
        torch.testing.assert_close(list(slopes.values()), list(by_autograd))


@pytest.mark.parametrize("turns", ["D", "G", "c", "DG", "DDGc", "DDDG"])
def test_steps_are_those_of_plain_torch(turns, blobs):
    at = scene(blobs, turns * 7)
    state, _ = by_method(at, HYPER)
    torch.testing.assert_close(players(state), in_plain_torch(at, HYPER), rtol=1e-9, atol=1e-9)
    moved = {PLAYERS[turn] for turn in turns}
    assert changed(at.state, state) == moved | {f"{player}_moments" for player in moved}


# ---- coefficients --------------------------------------------------------------------------------


@pytest.mark.parametrize("term", TERMS)
def test_a_coefficient_of_zero_removes_its_term(term, blobs):
    at = scene(blobs, "DGc" * 3)
    state, _ = by_method(at, HYPER._replace(**{term: 0.0}))
    without = in_plain_torch(at, HYPER, without=(term,))
    torch.testing.assert_close(players(state), without, rtol=1e-9, atol=1e-9)
    # And only then: the term matters, so that leaving it out shows.
    moved = "critic" if term in CRITIC_TERMS else term.split("_")[0]
    with_it, _ = by_method(at, HYPER)
    pairs = zip(getattr(with_it, moved).values(), without[moved].values(), strict=True)
    assert max((a - b).abs().max() for a, b in pairs) > 1e-4


def test_prototypes_count_only_if_used(blobs):
    at = scene(blobs, "DG" * 3)
    state, logs = by_method(at, HYPER._replace(use_prototypes=False))
    without = in_plain_torch(at, HYPER, without=("generator_prototype",))
    torch.testing.assert_close(players(state), without, rtol=1e-9, atol=1e-9)
    assert all(log["generator_prototype"] == 0 for log in logs[1::2])


def test_every_term_is_logged_and_has_a_coefficient(middle):
    _, logs = by_method(middle, HYPER)
    of_classifier = {"classifier", "classifier_rehearsal"}
    assert [set(log) for log in logs] == [set(CRITIC_TERMS), set(GENERATOR_TERMS), of_classifier]
    assert set(TERMS) < set(lgm_acgan.Hyper._fields)


# ---- rehearsal of the generator (7) --------------------------------------------------------------


def alignment(at: Scene, params, frozen):
    batch, noise = at.first("generator")
    replayed = gan.generate(at.nets, params, noise["z_old"], noise["y_old"])
    return gan.rehearsal(replayed, frozen, batch, noise, at.nets)


def test_alignment_is_zero_right_after_the_snapshot_and_so_is_its_gradient(blobs):
    at = scene(blobs)
    begun = at.method.begin_task(
        at.method.init(generator(0)), at.method.init(generator(1)), blobs.batch(1), lane(HYPER)
    )
    slopes, value = torch.func.grad_and_value(lambda p: alignment(at, p, begun.frozen))(
        begun.generator
    )
    assert value == 0
    assert not any(slope.any() for slope in slopes.values())


@pytest.mark.parametrize(("size", "learned"), [(1, 2), (8, 2), (64, 2), (64, 4), (2, 4)])
def test_alignment_is_a_mean_per_element(size, learned, blobs):
    """A shift of all outputs by δ costs δ², whatever the batch and the number of classes."""
    at = scene(blobs, t=learned // 2, shape=SHAPE._replace(replay_batch_size=size))
    shifted = {k: p + 0.3 * (k == "b2") for k, p in at.state.generator.items()}
    torch.testing.assert_close(
        alignment(at, shifted, at.state.generator), torch.tensor(0.09, dtype=F64)
    )


def test_snapshot_keeps_still_while_the_generator_moves(blobs):
    at = scene(blobs, "DGc" * 4)
    state, _ = by_method(at, HYPER)
    torch.testing.assert_close(state.frozen, at.state.frozen, **EXACTLY)
    torch.testing.assert_close(state.prototypes, at.state.prototypes, **EXACTLY)
    assert (state.generator["w0"] != at.state.generator["w0"]).any()


def test_rehearsal_terms_are_zero_in_the_first_task(blobs):
    at = scene(blobs, "DGc" * 3, t=0)
    state, logs = by_method(at, HYPER)
    assert all(log["generator_rehearsal"] == 0 for log in logs[1::3])
    assert all(log["classifier_rehearsal"] == 0 for log in logs[2::3])
    off = HYPER._replace(generator_rehearsal=0.0, classifier_rehearsal=0.0)
    torch.testing.assert_close(state, by_method(at, off)[0], **EXACTLY)


# ---- prototypes (6) ------------------------------------------------------------------------------


def test_prototype_distance_is_zero_where_means_agree():
    prototypes = torch.randn(5, 3, generator=generator(0), dtype=F64)
    offset = torch.randn(2, 3, generator=generator(1), dtype=F64)
    fake = torch.cat([prototypes[[1, 4]] + offset, prototypes[[1, 4]] - offset])
    distance = prototype_distance(fake, torch.tensor([1, 4, 1, 4]), prototypes)
    assert distance < 1e-30


def test_prototype_distance_counts_the_classes_that_are_there():
    rng = np.random.default_rng(0)
    fake, prototypes = rng.normal(size=(7, 3)), rng.normal(size=(5, 3))
    y = np.array([0, 3, 3, 0, 4, 3, 3])
    expected = np.mean([(fake[y == c].mean(0) - prototypes[c]) ** 2 for c in (0, 3, 4)])
    elsewhere = prototypes.copy()
    elsewhere[[1, 2]] = 1e3  # absent classes
    for table in (prototypes, elsewhere):
        ours = prototype_distance(*map(torch.tensor, (fake, y, table)))
        np.testing.assert_allclose(ours, expected, rtol=1e-12)


# ---- the classifier's rehearsal (8) --------------------------------------------------------------


@pytest.mark.parametrize(("scenario", "compete"), [("blobs", True), ("blobs_by_task", False)])
def test_current_logits_compete_with_replayed_classes_in_the_class_scenario(
    scenario, compete, request
):
    stream = request.getfixturevalue(scenario)
    at = scene(stream)
    batch, noise = at.first("classifier")

    def replay(classifier):
        loss = gan.classifier_loss(classifier, at.state, batch, lane(HYPER), noise, at.nets)
        return loss[1]["classifier_rehearsal"]

    slope = grad(replay)(at.state.classifier)["b1"]  # of the output layer: one a logit
    assert slope[batch.learned].all()
    assert slope[batch.current].any() == compete
    assert not slope[~batch.seen].any()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("seen", [True, False])
def test_replayed_classes(order, seen, blobs):
    method, task = lgm_acgan.build(blobs.problem, SHAPE), blobs.batch(1)
    hyper = lgm_acgan.Hyper(order=order, replay_seen=seen)
    y = method.draw(generator(0), "classifier", 50, task, hyper)["y_replay"]
    # A generator that has not met the current classes cannot replay them.
    expected = task.seen if seen and order != "classifier_first" else task.learned
    counts = (y[:, :, None] == torch.arange(6)).sum(1)  # (S, C)
    per_class = SHAPE.replay_batch_size // int(expected.sum())
    assert (counts == per_class * expected).all()


def test_the_aligned_classes_are_the_learned_ones(blobs):
    method, task = lgm_acgan.build(blobs.problem, SHAPE), blobs.batch(2)
    noise = method.draw(generator(0), "generator", 50, task, lgm_acgan.Hyper(replay_seen=True))
    counts = (noise["y_old"][:, :, None] == torch.arange(6)).sum(1)
    assert (counts == 2 * task.learned).all()


def test_noise_has_the_sizes_of_the_shape(blobs):
    shape = SHAPE._replace(batch_size=5, replay_batch_size=7, latent=4)
    method, g = lgm_acgan.build(blobs.problem, shape), generator(0)
    expected = {
        "critic": {"z_critic": (5, 4), "mix": (5, 1)},
        "generator": {"z": (5, 4), "z_old": (7, 4), "y_old": (7,)},
        "classifier": {"z_replay": (7, 4), "y_replay": (7,)},
        "end_task": {},
    }
    values = []
    for phase, sizes in expected.items():
        noise = method.draw(g, phase, 3, blobs.batch(1), lgm_acgan.Hyper())
        assert {k: tuple(v.shape) for k, v in noise.items()} == {
            k: (3, *size) for k, size in sizes.items()
        }
        values += [v for k, v in noise.items() if k.startswith("z")]
    assert len({v.sum().item() for v in values}) == len(values)  # none is another one's copy


def test_fewer_replayed_examples_than_learned_classes(blobs):
    at = scene(blobs, "DGc" * 3, t=2, shape=SHAPE._replace(replay_batch_size=3))
    _, logs = by_method(at, HYPER)
    for (phase, batch, noise), log in zip(at.steps, logs, strict=True):
        assert batch.learned.sum() == 4
        assert all(batch.learned[y].all() for k, y in noise.items() if k.startswith("y_"))
        assert all(term.isfinite() for term in log.values())
        assert phase != "classifier" or log["classifier_rehearsal"] > 0


# ---- who moves, and when -------------------------------------------------------------------------


def changed(before, after):
    """Names of the fields of a state in which any number differs."""
    pairs = zip(before._fields, before, after, strict=True)
    return {
        name
        for name, a, b in pairs
        if any((x != y).any() for x, y in zip(tree_leaves(a), tree_leaves(b), strict=True))
    }


@pytest.mark.parametrize("player", PLAYERS.values())
def test_every_player_has_its_own_rate(player, middle):
    state, _ = by_method(middle, HYPER._replace(**{f"{player}_lr": 0.0}))
    others = {*PLAYERS.values()} - {player}
    assert changed(middle.state, state) & {*PLAYERS.values()} == others


def test_auxiliary_head_learns_from_the_first_critic_step(blobs):
    # The generator's term (5) leans on it, so it must not wait for the classifier's phase.
    at = scene(blobs, "D")
    state, _ = by_method(at, HYPER._replace(critic_adversarial=0.0, gradient_penalty=0.0))
    columns = (state.critic["w1"] != at.state.critic["w1"]).any(0)
    assert columns.tolist() == [False, *at.first("critic")[0].current.tolist()]


def test_generator_listens_to_the_auxiliary_head_and_not_to_the_classifier(middle):
    batch, noise = middle.first("generator")

    def term(state):
        loss = lgm_acgan.generator_loss(
            state.generator, state, batch, lane(HYPER), noise, middle.nets
        )
        return loss[1]["generator_classification"]

    other = middle.method.init(generator(9))
    with_classifier = middle.state._replace(classifier=other.classifier)
    assert term(with_classifier) == term(middle.state)
    assert term(middle.state._replace(critic=other.critic)) != term(middle.state)


def test_smoothing_concerns_the_classifier_only(middle):
    smooth, _ = by_method(middle, HYPER._replace(label_smoothing=0.3))
    plain, _ = by_method(middle, HYPER._replace(label_smoothing=0.0))
    assert changed(smooth, plain) == {"classifier", "classifier_moments"}


# ---- the start of a task -------------------------------------------------------------------------


@pytest.mark.parametrize("reset_critic", [True, False])
@pytest.mark.parametrize("reset_classifier", [True, False])
def test_resets_concern_what_they_name(reset_critic, reset_classifier, blobs):
    at = scene(blobs, "DGc" * 2)
    worn, _ = by_method(at, HYPER)
    fresh, before = at.method.init(generator(8)), clone(worn)
    hyper = lane(HYPER._replace(reset_critic=reset_critic, reset_classifier=reset_classifier))
    begun = at.method.begin_task(worn, fresh, blobs.batch(2), hyper)

    expected = {
        "generator": worn.generator,  # never reset
        "frozen": worn.generator,
        "critic": fresh.critic if reset_critic else worn.critic,
        "classifier": fresh.classifier if reset_classifier else worn.classifier,
    }
    torch.testing.assert_close({k: getattr(begun, k) for k in expected}, expected, **EXACTLY)
    for player in PLAYERS.values():  # optimisers are rebuilt
        assert not any(leaf.any() for leaf in getattr(begun, f"{player}_moments"))
    torch.testing.assert_close(worn, before, **EXACTLY)


def test_prototypes_are_the_class_means_of_the_current_task(blobs):
    method = lgm_acgan.build(blobs.problem, SHAPE)
    state, task = method.init(generator(0)), blobs.batch(1)
    state = state._replace(prototypes=state.prototypes + 7)  # of an earlier task: forgotten
    begun = method.begin_task(state, state, task, lane(HYPER))
    for c in range(6):
        mean = task.x[task.y == c].mean(0) if task.current[c] else torch.zeros(8, dtype=F64)
        torch.testing.assert_close(begun.prototypes[c], mean)


# ---- programs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "turns"),
    [
        ("gan_first", "DDDGDDDGDcccc"),
        ("classifier_first", "ccccDDDGDDDGD"),
        ("interleaved", "DcDcDGcDcDDGD"),
    ],
)
def test_orders_are_what_their_names_say(order, turns):
    hyper = lgm_acgan.Hyper(order=order, gan_steps=7, classifier_steps=4, critic_steps=3)
    program = [(PLAYERS[turn], len(list(run))) for turn, run in itertools.groupby(turns)]
    assert gan.schedule(hyper, 0) == program
    assert gan.schedule(hyper, 3) == program


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("steps", [(30, 20), (20, 30), (25, 25), (11, 0), (0, 5), (0, 0)])
def test_all_steps_are_taken_and_the_generator_follows_every_nth_of_the_critic(order, n, steps):
    hyper = lgm_acgan.Hyper(order, *steps, critic_steps=n)
    program = gan.schedule(hyper, 1)
    assert all(count > 0 for _, count in program)
    phases = [phase for phase, count in program for _ in range(count)]
    assert (phases.count("critic"), phases.count("classifier")) == steps
    at = [i for i, phase in enumerate(phases) if phase == "generator"]
    assert len(at) == steps[0] // n
    assert all(phases[i - 1] == "critic" for i in at)  # with nothing in between
    assert [phases[:i].count("critic") for i in at] == list(range(n, steps[0] + 1, n))


def test_unknown_orders_raise():
    with pytest.raises(ValueError, match=r"'gan_first'.*got 'gan_last'"):
        gan.schedule(lgm_acgan.Hyper(order="gan_last"), 0)


# ---- the whole -----------------------------------------------------------------------------------


def test_samples_are_the_generator_s_and_have_the_shape_of_inputs(blobs):
    problem = blobs.problem._replace(input_shape=(2, 2, 2))
    method = lgm_acgan.build(problem, SHAPE)
    state, y = method.init(generator(0)), torch.tensor([0, 3, 3, 5])
    z = torch.randn(4, SHAPE.latent, generator=generator(1), dtype=F64)
    assert method.sample is not None
    samples = method.sample(state, y, z)
    assert samples.shape == (4, 2, 2, 2)
    torch.testing.assert_close(samples.flatten(1), g_of(state.generator, z, y))


def test_images_are_learned_like_their_pixels(blobs):
    """Inputs of any shape: the same numbers as for flat ones."""
    at, method = scene(blobs), lgm_acgan.build(blobs.problem._replace(input_shape=(2, 2, 2)), SHAPE)
    pictures = [(p, b._replace(x=b.x.reshape(-1, 2, 2, 2)), n) for p, b, n in at.steps]
    torch.testing.assert_close(method.init(generator(0)), at.method.init(generator(0)), **EXACTLY)
    flat, _ = by_method(at, HYPER)
    ours, _ = by_method(at._replace(method=method, steps=pictures), HYPER)
    torch.testing.assert_close(ours, flat, **EXACTLY)
    (_, picture, _), (_, batch, _) = pictures[0], at.steps[0]
    torch.testing.assert_close(
        method.predict(ours, picture.x), at.method.predict(ours, batch.x), **EXACTLY
    )


def test_replay_keeps_what_fine_tuning_forgets(blobs):
    stream, shape = (
        first_tasks(blobs, 2),
        lgm_acgan.Shape("perceptron", 4, 32, 1, 32, 1, 32, 1, 16, 16),
    )
    hyper = lgm_acgan.Hyper(
        gan_steps=60,
        classifier_steps=60,
        critic_steps=1,
        generator_lr=5e-3,
        critic_lr=1e-2,
        classifier_lr=1e-2,
        generator_classification=1.0,
        gradient_penalty=1.0,
    )
    off = hyper._replace(classifier_rehearsal=0.0)
    with_replay, without = learn(
        lgm_acgan.build(stream.problem, shape), stream, [(hyper, 0), (off, 0)]
    )
    assert with_replay.accuracy[1].min() > 0.7
    assert without.accuracy[1, 0] < 0.3
    assert without.accuracy[1, 1] > 0.7
