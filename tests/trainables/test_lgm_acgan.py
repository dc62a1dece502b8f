"""LGM-AC-GAN: its equations written once more with ``torch.autograd``, and the traps it avoids."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.func import grad
from torch.utils._pytree import tree_leaves, tree_map

from tests.conftest import EXACTLY, F64, clone, first_tasks, generator, tiny
from trainables import lgm_acgan
from trainables.engine.learn import in_lane, learn
from trainables.engine.method import Batch, Method, Problem

GENERATOR_TERMS = (
    "generator_adversarial",
    "generator_classification",
    "generator_prototype",
    "generator_rehearsal",
)
CRITIC_TERMS = ("critic_adversarial", "critic_classification", "gradient_penalty")
TERMS = (*GENERATOR_TERMS, *CRITIC_TERMS, "classifier_rehearsal")
SHAPE = tiny(lgm_acgan)
# Every term on, every coefficient and rate different from the others.
HYPER = lgm_acgan.Hyper(
    critic_steps=1,
    generator_lr=0.011,
    generator_beta1=0.3,
    critic_lr=0.013,
    critic_beta1=0.1,
    critic_beta2=0.95,
    classifier_lr=0.017,
    classifier_beta1=0.5,
    classifier_beta2=0.99,
    generator_adversarial=0.9,
    generator_classification=0.7,
    critic_adversarial=1.1,
    critic_classification=0.8,
    gradient_penalty=3.0,
    use_prototypes=True,
    generator_prototype=1.7,
    generator_rehearsal=5.0,
    classifier_rehearsal=0.6,
    label_smoothing=0.1,
)


class Scene(NamedTuple):
    """A lane in the middle of the second task: two classes learned, two current, two to come."""

    problem: Problem
    method: Method
    nets: lgm_acgan.Nets
    state: lgm_acgan.State
    batches: list[Batch]
    noise: list[dict[str, torch.Tensor]]  # one a batch, for every phase


def scene(stream, steps=1, t=1, shape=SHAPE) -> Scene:
    method, problem = lgm_acgan.build(stream.problem, shape), stream.problem
    task, hyper = stream.batch(t), lgm_acgan.Hyper()
    state = method.begin_task(
        method.init(generator(0)), method.init(generator(1)), task, lane(hyper)
    )
    state = state._replace(frozen=method.init(generator(2)).generator)  # as if G had moved since
    rows = torch.randint(len(task.y), (steps, shape.batch_size), generator=generator(3))
    batches = [task._replace(x=task.x[i], y=task.y[i]) for i in rows]
    drawn = method.draw(generator(4), "interleaved", steps, task, hyper)
    noise = [tree_map(lambda leaf, s=s: leaf[s], drawn) for s in range(steps)]
    return Scene(problem, method, lgm_acgan.networks(problem, shape), state, batches, noise)


def lane(hyper):
    return in_lane(hyper, F64)


@pytest.fixture
def middle(blobs):
    return scene(blobs)


# ---- the method once more, in plain torch --------------------------------------------------------


def forward(params, x, slope):
    layers = len(params) // 2
    for i in range(layers):
        x = F.linear(x, params[f"w{i}"].T, params[f"b{i}"])
        x = F.leaky_relu(x, slope) if i < layers - 1 else x
    return x


def g_of(params, z, y):
    return forward(params, torch.cat([z, F.one_hot(y, 6).to(z.dtype)], 1), 0.01)


def masked_cross_entropy(logits, y, rows, smoothing=0.0):
    """One example at a time, on the columns that compete."""
    losses = []
    for example, label, row in zip(logits, y.tolist(), rows, strict=True):
        columns = row.nonzero()[:, 0].tolist()
        share = smoothing / (len(columns) - 1) if len(columns) > 1 else 0.0
        target = torch.full((len(columns),), share, dtype=F64)
        target[columns.index(label)] = 1 - share * (len(columns) - 1)
        losses.append(F.cross_entropy(example[columns], target))
    return torch.stack(losses).mean()


def critic_terms(critic, state, batch, noise):
    x = batch.x.flatten(1)
    fake = g_of(state.generator, noise["z_critic"], batch.y).detach()
    real_out, fake_out = forward(critic, x, 0.0), forward(critic, fake, 0.0)
    between = (x + noise["mix"] * (fake - x)).requires_grad_()
    (slope,) = torch.autograd.grad(
        forward(critic, between, 0.0)[:, 0].sum(), between, create_graph=True
    )
    current = batch.current.repeat(len(batch.y), 1)
    return {
        "critic_adversarial": fake_out[:, 0].mean() - real_out[:, 0].mean(),
        "critic_classification": masked_cross_entropy(real_out[:, 1:], batch.y, current),
        "gradient_penalty": (slope.norm(dim=1) - 1).square().mean(),
    }


def generator_terms(params, state, batch, noise):
    fake = g_of(params, noise["z"], batch.y)
    out = forward(state.critic, fake, 0.0)
    of_class = [
        F.mse_loss(fake[batch.y == c].mean(0), state.prototypes[c]) for c in batch.y.unique()
    ]
    current = batch.current.repeat(len(batch.y), 1)
    now = g_of(params, noise["z_old"], noise["y_old"])
    then = g_of(state.frozen, noise["z_old"], noise["y_old"])
    return {
        "generator_adversarial": -out[:, 0].mean(),
        "generator_classification": masked_cross_entropy(out[:, 1:], batch.y, current),
        "generator_prototype": torch.stack(of_class).mean(),
        "generator_rehearsal": F.mse_loss(now, then.detach()),
    }


def classifier_terms(params, state, batch, hyper, noise):
    y = noise["y_replay"]
    replayed = g_of(state.generator, noise["z_replay"], y).detach()
    on_real, on_replay = forward(params, batch.x, 0.0), forward(params, replayed, 0.0)
    s = hyper.label_smoothing
    return {
        "classifier": masked_cross_entropy(on_real, batch.y, batch.rivals[batch.y], s),
        "classifier_rehearsal": masked_cross_entropy(on_replay, y, batch.rivals[y], s),
    }


def in_plain_torch(at: Scene, hyper, phase, without=()):
    """The players after the scene's steps, with ``torch.optim.Adam``.

    A term named in ``without`` is not in the loss at all.
    """
    leaves, optimizers = {}, {}
    for player in ("generator", "critic", "classifier"):
        params = {k: p.clone().requires_grad_() for k, p in getattr(at.state, player).items()}
        lr, b1, b2 = (getattr(hyper, f"{player}_{n}") for n in ("lr", "beta1", "beta2"))
        leaves[player] = params
        optimizers[player] = torch.optim.Adam(params.values(), lr=lr, betas=(b1, b2))
    state = at.state._replace(**leaves)

    def step(player, terms):
        weights = hyper._asdict() | {"classifier": 1.0}
        kept = [weights[name] * term for name, term in terms.items() if name not in without]
        params = list(leaves[player].values())
        slopes = torch.autograd.grad(
            sum(kept, torch.zeros(())), params, allow_unused=True, materialize_grads=True
        )
        for p, slope in zip(params, slopes, strict=True):
            p.grad = slope
        optimizers[player].step()

    for i, (batch, noise) in enumerate(zip(at.batches, at.noise, strict=True)):
        if phase in ("gan", "interleaved"):
            step("critic", critic_terms(state.critic, state, batch, noise))
            if (i + 1) % hyper.critic_steps == 0:
                step("generator", generator_terms(state.generator, state, batch, noise))
        if phase in ("classifier", "interleaved"):
            step("classifier", classifier_terms(state.classifier, state, batch, hyper, noise))
    return {player: {k: p.detach() for k, p in leaves[player].items()} for player in leaves}


def by_method(at: Scene, hyper, phase):
    state, logs = at.state, []
    for batch, noise in zip(at.batches, at.noise, strict=True):
        state, log = at.method.steps[phase](state, batch, lane(hyper), noise)
        logs.append(log)
    return state, logs


def players(state):
    return {name: getattr(state, name) for name in ("generator", "critic", "classifier")}


@pytest.mark.parametrize("scenario", ["blobs", "blobs_by_task"])
def test_losses_and_gradients_are_those_of_plain_torch(scenario, request):
    at = scene(request.getfixturevalue(scenario))
    (batch,), (noise,), state, hyper = at.batches, at.noise, at.state, lane(HYPER)
    fake = lgm_acgan.generate(at.nets, state.generator, noise["z_critic"], batch.y, 6)
    cases = {
        "critic": (
            lambda p: lgm_acgan.critic_loss(p, batch.x, fake, batch, hyper, noise["mix"], at.nets),
            lambda p: critic_terms(p, state, batch, noise),
        ),
        "generator": (
            lambda p: lgm_acgan.generator_loss(p, state, batch, hyper, noise, at.nets),
            lambda p: generator_terms(p, state, batch, noise),
        ),
        "classifier": (
            lambda p: lgm_acgan.classifier_loss(p, state, batch, hyper, noise, at.nets),
            lambda p: classifier_terms(p, state, batch, HYPER, noise),
        ),
    }
    for player, (ours, theirs) in cases.items():
        slopes, terms = grad(ours, has_aux=True)(getattr(state, player))
        params = {k: p.clone().requires_grad_() for k, p in getattr(state, player).items()}
        expected = theirs(params)
        torch.testing.assert_close(terms, {k: v.detach() for k, v in expected.items()})
        weights = HYPER._asdict() | {"classifier": 1.0}
        total = sum((weights[k] * v for k, v in expected.items()), torch.zeros(()))
        torch.testing.assert_close(ours(getattr(state, player))[0], total.detach())
        by_autograd = torch.autograd.grad(total, list(params.values()))
        torch.testing.assert_close(list(slopes.values()), list(by_autograd))


@pytest.mark.parametrize("critic_steps", [1, 3])
@pytest.mark.parametrize("phase", ["gan", "classifier", "interleaved"])
def test_steps_are_those_of_plain_torch(phase, critic_steps, blobs):
    at, hyper = scene(blobs, steps=7), HYPER._replace(critic_steps=critic_steps)
    state, _ = by_method(at, hyper, phase)
    expected = in_plain_torch(at, hyper, phase)
    torch.testing.assert_close(players(state), expected, rtol=1e-9, atol=1e-9)
    moved = [
        name for name in players(state)
        if not torch.equal(players(state)[name]["w0"], players(at.state)[name]["w0"])
    ]  # fmt: skip
    inside = {"gan": ["generator", "critic"], "classifier": ["classifier"]}
    assert moved == inside.get(phase, ["generator", "critic", "classifier"])


# ---- coefficients --------------------------------------------------------------------------------


@pytest.mark.parametrize("term", TERMS)
def test_a_coefficient_of_zero_removes_its_term(term, blobs):
    at = scene(blobs, steps=3)
    state, _ = by_method(at, HYPER._replace(**{term: 0.0}), "interleaved")
    without = in_plain_torch(at, HYPER, "interleaved", without=(term,))
    torch.testing.assert_close(players(state), without, rtol=1e-9, atol=1e-9)
    # And only then: the term matters, so that leaving it out shows.
    with_it, _ = by_method(at, HYPER, "interleaved")
    moved = "critic" if term in CRITIC_TERMS else term.split("_")[0]
    difference = [
        (a - b).abs().max()
        for a, b in zip(
            tree_leaves(players(with_it)[moved]), tree_leaves(without[moved]), strict=True
        )
    ]
    assert max(difference) > 1e-4


def test_prototypes_count_only_if_used(blobs):
    at = scene(blobs, steps=3)
    state, logs = by_method(at, HYPER._replace(use_prototypes=False), "gan")
    without = in_plain_torch(at, HYPER, "gan", without=("generator_prototype",))
    torch.testing.assert_close(players(state), without, rtol=1e-9, atol=1e-9)
    assert all(log["generator_prototype"] == 0 for log in logs)


def test_every_term_is_logged_and_has_a_coefficient(middle):
    _, (log,) = by_method(middle, HYPER, "interleaved")
    assert set(log) == {*TERMS, "classifier"}
    assert set(TERMS) < set(lgm_acgan.Hyper._fields)


# ---- rehearsal of the generator (7) --------------------------------------------------------------


def alignment(at: Scene, params, frozen, batch=None, noise=None):
    batch, noise = batch or at.batches[0], noise or at.noise[0]
    classes = batch.learned.shape[-1]
    replayed = lgm_acgan.generate(at.nets, params, noise["z_old"], noise["y_old"], classes)
    return lgm_acgan.alignment(replayed, frozen, batch, noise, at.nets)


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
    t = learned // 2
    at = scene(blobs, t=t, shape=SHAPE._replace(replay_batch_size=size))
    shifted = {k: p + 0.3 * (k == "b2") for k, p in at.state.generator.items()}
    torch.testing.assert_close(
        alignment(at, shifted, at.state.generator), torch.tensor(0.09, dtype=F64)
    )


def test_snapshot_keeps_still_while_the_generator_moves(blobs):
    at = scene(blobs, steps=4)
    state, _ = by_method(at, HYPER, "interleaved")
    torch.testing.assert_close(state.frozen, at.state.frozen, **EXACTLY)
    torch.testing.assert_close(state.prototypes, at.state.prototypes, **EXACTLY)
    assert (state.generator["w0"] != at.state.generator["w0"]).any()


def test_rehearsal_terms_are_zero_in_the_first_task(blobs):
    at = scene(blobs, steps=3, t=0)
    state, logs = by_method(at, HYPER, "interleaved")
    for log in logs:
        assert log["generator_rehearsal"] == 0
        assert log["classifier_rehearsal"] == 0
    off = HYPER._replace(generator_rehearsal=0.0, classifier_rehearsal=0.0)
    torch.testing.assert_close(state, by_method(at, off, "interleaved")[0], **EXACTLY)


# ---- prototypes (6) ------------------------------------------------------------------------------


def test_prototype_distance_is_zero_where_means_agree():
    prototypes = torch.randn(5, 3, generator=generator(0), dtype=F64)
    offset = torch.randn(2, 3, generator=generator(1), dtype=F64)
    fake = torch.cat([prototypes[[1, 4]] + offset, prototypes[[1, 4]] - offset])
    distance = lgm_acgan.prototype_distance(fake, torch.tensor([1, 4, 1, 4]), prototypes)
    assert distance < 1e-30


def test_prototype_distance_counts_the_classes_that_are_there():
    rng = np.random.default_rng(0)
    fake, prototypes = rng.normal(size=(7, 3)), rng.normal(size=(5, 3))
    y = np.array([0, 3, 3, 0, 4, 3, 3])
    expected = np.mean([(fake[y == c].mean(0) - prototypes[c]) ** 2 for c in (0, 3, 4)])
    elsewhere = prototypes.copy()
    elsewhere[[1, 2]] = 1e3  # absent classes
    for table in (prototypes, elsewhere):
        ours = lgm_acgan.prototype_distance(*map(torch.tensor, (fake, y, table)))
        np.testing.assert_allclose(ours, expected, rtol=1e-12)


# ---- the classifier's rehearsal (8) --------------------------------------------------------------


@pytest.mark.parametrize(("scenario", "compete"), [("blobs", True), ("blobs_by_task", False)])
def test_current_logits_compete_with_replayed_classes_in_the_class_scenario(
    scenario, compete, request
):
    stream = request.getfixturevalue(scenario)
    at = scene(stream)
    (batch,), (noise,) = at.batches, at.noise

    def replay(classifier):
        loss = lgm_acgan.classifier_loss(classifier, at.state, batch, lane(HYPER), noise, at.nets)
        return loss[1]["classifier_rehearsal"]

    slope = grad(replay)(at.state.classifier)["b1"]  # of the output layer: one a logit
    assert slope[batch.learned].all()
    assert slope[batch.current].any() == compete
    assert not slope[~batch.seen].any()


@pytest.mark.parametrize("order", ["gan_first", "classifier_first", "interleaved"])
@pytest.mark.parametrize("seen", [True, False])
def test_replayed_classes(order, seen, blobs):
    method, task = lgm_acgan.build(blobs.problem, SHAPE), blobs.batch(1)
    hyper = lgm_acgan.Hyper(order=order, replay_seen=seen)
    phase = "interleaved" if order == "interleaved" else "classifier"
    noise = method.draw(generator(0), phase, 50, task, hyper)
    # A generator that has not met the current classes cannot replay them.
    expected = task.seen if seen and order != "classifier_first" else task.learned
    counts = (noise["y_replay"][:, :, None] == torch.arange(6)).sum(1)  # (S, C)
    per_class = SHAPE.replay_batch_size // int(expected.sum())
    assert (counts == per_class * expected).all()


def test_the_aligned_classes_are_the_learned_ones(blobs):
    method, task = lgm_acgan.build(blobs.problem, SHAPE), blobs.batch(2)
    y = method.draw(generator(0), "gan", 50, task, lgm_acgan.Hyper(replay_seen=True))["y_old"]
    counts = (y[:, :, None] == torch.arange(6)).sum(1)
    assert (counts == 2 * task.learned).all()


@pytest.mark.parametrize("phase", ["gan", "classifier", "interleaved"])
def test_noise_has_the_sizes_of_the_shape(phase, blobs):
    shape = SHAPE._replace(batch_size=5, replay_batch_size=7, latent=4)
    method = lgm_acgan.build(blobs.problem, shape)
    noise = method.draw(generator(0), phase, 3, blobs.batch(1), lgm_acgan.Hyper())
    gan = {"z_critic": (5, 4), "z": (5, 4), "z_old": (7, 4), "y_old": (7,), "mix": (5, 1)}
    classifier = {"z_replay": (7, 4), "y_replay": (7,)}
    sizes = {"gan": gan, "classifier": classifier, "interleaved": gan | classifier}[phase]
    assert {k: tuple(v.shape) for k, v in noise.items()} == {k: (3, *s) for k, s in sizes.items()}
    values = [v for k, v in noise.items() if k.startswith("z")]
    assert len({v.sum().item() for v in values}) == len(values)  # none is another one's copy


def test_fewer_replayed_examples_than_learned_classes(blobs):
    at = scene(blobs, steps=3, t=2, shape=SHAPE._replace(replay_batch_size=3))
    assert at.batches[0].learned.sum() == 4
    _, logs = by_method(at, HYPER, "interleaved")
    for noise, log in zip(at.noise, logs, strict=True):
        for y in (noise["y_old"], noise["y_replay"]):
            assert at.batches[0].learned[y].all()
        assert all(term.isfinite() for term in log.values())
        assert log["classifier_rehearsal"] > 0


# ---- who moves, and when -------------------------------------------------------------------------


def changed(before, after):
    """Names of the fields of a state in which any number differs."""
    pairs = zip(before._fields, before, after, strict=True)
    return {
        name
        for name, a, b in pairs
        if any((x != y).any() for x, y in zip(tree_leaves(a), tree_leaves(b), strict=True))
    }


GAN_FIELDS = {"generator", "generator_moments", "critic", "critic_moments"}
CLASSIFIER_FIELDS = {"classifier", "classifier_moments"}


@pytest.mark.parametrize(
    ("phase", "fields"),
    [
        ("gan", GAN_FIELDS),
        ("classifier", CLASSIFIER_FIELDS),
        ("interleaved", GAN_FIELDS | CLASSIFIER_FIELDS),
    ],
)
def test_a_phase_moves_only_its_players(phase, fields, middle):
    state, _ = by_method(middle, HYPER, phase)
    assert changed(middle.state, state) == fields


@pytest.mark.parametrize("player", ["generator", "critic", "classifier"])
def test_every_player_has_its_own_rate(player, middle):
    state, _ = by_method(middle, HYPER._replace(**{f"{player}_lr": 0.0}), "interleaved")
    others = {"generator", "critic", "classifier"} - {player}
    assert changed(middle.state, state) & {"generator", "critic", "classifier"} == others


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_generator_moves_at_every_nth_critic_step(n, blobs):
    at = scene(blobs, steps=11)
    state, moved = at.state, []
    for step, (batch, noise) in enumerate(zip(at.batches, at.noise, strict=True), start=1):
        after, _ = at.method.steps["gan"](state, batch, lane(HYPER._replace(critic_steps=n)), noise)
        if "generator" in changed(state, after):
            moved.append(step)
            assert "generator_moments" in changed(state, after)
        assert "critic" in changed(state, after)
        state = after
    assert moved == [step for step in range(1, 12) if step % n == 0]
    assert state.generator_moments.step == 11 // n


def test_auxiliary_head_learns_from_the_first_critic_step(middle):
    # The generator's term (5) leans on it, so it must not wait for the classifier's phase.
    hyper = HYPER._replace(critic_adversarial=0.0, gradient_penalty=0.0)
    state, _ = by_method(middle, hyper, "gan")
    columns = (state.critic["w1"] != middle.state.critic["w1"]).any(0)
    assert columns.tolist() == [False, *middle.batches[0].current.tolist()]


def test_generator_listens_to_the_auxiliary_head_and_not_to_the_classifier(middle):
    (batch,), (noise,) = middle.batches, middle.noise

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
    smooth, _ = by_method(middle, HYPER._replace(label_smoothing=0.3), "interleaved")
    plain, _ = by_method(middle, HYPER._replace(label_smoothing=0.0), "interleaved")
    assert changed(smooth, plain) == CLASSIFIER_FIELDS


# ---- the start of a task -------------------------------------------------------------------------


@pytest.mark.parametrize("reset_critic", [True, False])
@pytest.mark.parametrize("reset_classifier", [True, False])
def test_resets_concern_what_they_name(reset_critic, reset_classifier, blobs):
    at = scene(blobs, steps=2)
    worn, _ = by_method(at, HYPER, "interleaved")
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
    for player in ("generator", "critic", "classifier"):  # optimisers are rebuilt
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
    ("order", "program"),
    [
        ("gan_first", [("gan", 30), ("classifier", 20)]),
        ("classifier_first", [("classifier", 20), ("gan", 30)]),
        ("interleaved", [("interleaved", 20), ("gan", 10), ("classifier", 0)]),
    ],
)
def test_orders_are_what_their_names_say(order, program):
    hyper = lgm_acgan.Hyper(order=order, gan_steps=30, classifier_steps=20)
    assert lgm_acgan.schedule(hyper, 0) == program
    assert lgm_acgan.schedule(hyper, 3) == program


@pytest.mark.parametrize(("gan", "classifier"), [(30, 20), (20, 30), (25, 25), (0, 5)])
def test_interleaved_tasks_take_all_their_steps(gan, classifier):
    hyper = lgm_acgan.Hyper(order="interleaved", gan_steps=gan, classifier_steps=classifier)
    steps = dict(lgm_acgan.schedule(hyper, 1))
    assert steps["interleaved"] + steps["gan"] == gan
    assert steps["interleaved"] + steps["classifier"] == classifier
    assert min(steps.values()) == 0


def test_unknown_orders_raise():
    with pytest.raises(ValueError, match=r"'gan_first'.*got 'gan_last'"):
        lgm_acgan.schedule(lgm_acgan.Hyper(order="gan_last"), 0)


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
    image = blobs.problem._replace(input_shape=(2, 2, 2))
    at = scene(blobs)
    method = lgm_acgan.build(image, SHAPE)
    pictures = [b._replace(x=b.x.reshape(-1, 2, 2, 2)) for b in at.batches]
    torch.testing.assert_close(method.init(generator(0)), at.method.init(generator(0)), **EXACTLY)
    ours, _ = by_method(at._replace(method=method, batches=pictures), HYPER, "interleaved")
    torch.testing.assert_close(ours, by_method(at, HYPER, "interleaved")[0], **EXACTLY)
    torch.testing.assert_close(
        method.predict(ours, pictures[0].x), at.method.predict(ours, at.batches[0].x), **EXACTLY
    )


def test_replay_keeps_what_fine_tuning_forgets(blobs):
    stream, shape = first_tasks(blobs, 2), lgm_acgan.Shape(4, 32, 1, 32, 1, 32, 1, 16, 16)
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
