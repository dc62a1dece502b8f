"""A trainable embedder against plain torch: its step, what holds it, and who leaves it alone."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.utils._pytree import tree_map

from tests.conftest import EXACTLY, F64, first_tasks, generator, tiny
from tests.trainables.lgm_acgan_in_torch import forward, lane, masked_cross_entropy
from trainables import genmem_vae, lgm_acgan, lgm_ae, lgm_cgan, lgm_memory, lgm_vae
from trainables.benchmarks import Split
from trainables.engine.embedder import in_front_of
from trainables.engine.learn import learn, learn_task
from trainables.engine.packs import Engine

METHODS = [lgm_acgan, lgm_cgan, lgm_memory, lgm_vae]
each_method = pytest.mark.parametrize("plain", METHODS, ids=lambda module: module.__name__)


def small(module):
    return tiny(module)._replace(embedder_features=5)


def features(params, x):
    return F.relu(forward(params, x, 0.0))


def scene(plain, stream, t=1, **hyper):
    """Method, state, minibatch, hyper and the noise of a classifier's step, in a later task."""
    module = in_front_of(plain)
    method, task = module.build(stream.problem, small(module)), stream.batch(t)
    plain_hyper = module.Hyper(**hyper)
    state = method.init(generator(0))
    for k in range(t):
        before = stream.batch(k)
        state = method.begin_task(state, method.init(generator(1)), before, lane(plain_hyper))
        noise = method.draw(generator(k), "end_task", 1, before, plain_hyper)
        first = tree_map(lambda leaf: leaf[0], noise)
        state = method.end_task(state, before, lane(plain_hyper), first)
    state = method.begin_task(state, method.init(generator(1)), task, lane(plain_hyper))
    g = generator(6)
    moved = {k: p + 0.1 * torch.randn(p.shape, generator=g, dtype=F64)
             for k, p in state.embedder.items()}  # fmt: skip
    state = state._replace(embedder=moved)
    noise = method.draw(generator(4), "classifier", 1, task, plain_hyper)
    batch = task._replace(x=task.x[:8], y=task.y[:8])
    return method, state, batch, plain_hyper, tree_map(lambda leaf: leaf[0], noise)


# ---- its step ------------------------------------------------------------------------------------


@each_method
def test_the_trunk_descends_the_classifiers_loss_and_what_holds_it(plain, blobs):
    weights = {"embedder_ewc": 0.3, "embedder_mas": 0.2}
    on = {"use_embedder_ewc": True, "use_embedder_mas": True}
    method, state, batch, hyper, noise = scene(plain, blobs, embedder_lr=0.01, **weights, **on)
    after, terms = method.steps["classifier"](state, batch, lane(hyper), noise)
    params = {k: p.clone().requires_grad_() for k, p in state.embedder.items()}
    adam = torch.optim.Adam(params.values(), lr=0.01)
    logits = forward(state.method.classifier, features(params, batch.x), 0.0)
    moved = torch.cat([p.flatten() for p in params.values()]) - state.anchor
    held = {
        "embedder_ewc": (state.fisher * moved.square()).sum(),
        "embedder_mas": (state.sensitivity * moved.square()).sum(),
    }
    loss = masked_cross_entropy(logits, batch.y, batch.rivals[batch.y])
    (loss + sum(weights[k] * term for k, term in held.items())).backward()
    adam.step()
    expected = {k: p.detach() for k, p in params.items()}
    torch.testing.assert_close(after.embedder, expected, rtol=1e-9, atol=1e-9)
    for name, term in held.items():
        torch.testing.assert_close(terms[name], term.detach())
    assert terms["embedder_ewc"] > 0
    # The classifier takes the method's own step, on the features before it.
    module = plain.build(blobs.problem._replace(input_shape=(5,)), tiny(plain))
    coded = batch._replace(x=features(state.embedder, batch.x))
    alone, own = module.steps["classifier"](state.method, coded, lane(hyper), noise)
    torch.testing.assert_close(after.method, alone)
    torch.testing.assert_close({k: terms[k] for k in own}, own)


@each_method
def test_other_players_leave_the_trunk_alone(plain, blobs):
    method, state, batch, hyper, _ = scene(plain, blobs)
    for phase in method.steps.keys() - {"classifier"}:
        noise = tree_map(
            lambda leaf: leaf[0], method.draw(generator(4), phase, 1, blobs.batch(1), hyper)
        )
        after, terms = method.steps[phase](state, batch, lane(hyper), noise)
        torch.testing.assert_close(after[:-1], state[:-1], **EXACTLY)
        assert terms
    if method.sample:
        z = torch.randn(2, method.latent, dtype=F64)
        assert method.sample(state, torch.tensor([0, 3]), z).shape == (2, 5)
    assert method.features
    torch.testing.assert_close(method.features(state, batch.x), features(state.embedder, batch.x))


# ---- what holds it -------------------------------------------------------------------------------


def test_nothing_holds_the_trunk_in_the_first_task(blobs):
    on = {"use_embedder_ewc": True, "use_embedder_mas": True}
    method, state, batch, hyper, noise = scene(lgm_memory, blobs, t=0, **on)
    _, terms = method.steps["classifier"](state, batch, lane(hyper), noise)
    assert terms["embedder_ewc"] == terms["embedder_mas"] == 0


def test_importances_add_up_over_tasks(blobs):
    states = [scene(lgm_memory, blobs, t=t)[1] for t in range(3)]
    one = torch.ones((), dtype=F64)
    for t, state in enumerate(states):
        torch.testing.assert_close(state.fisher.mean(), t * one)
        torch.testing.assert_close(state.sensitivity.mean(), t * one)
    assert (states[2].fisher >= states[1].fisher).all()


@pytest.mark.parametrize("name", ["embedder_ewc", "embedder_mas"])
def test_a_trunk_that_is_held_moves_less(name, blobs):
    stream, module = first_tasks(blobs, 2), in_front_of(lgm_memory)
    shape = small(module)._replace(classifier_hidden=16, embedder_features=8)
    free = module.Hyper(classifier_steps=60, classifier_lr=1e-2, embedder_lr=1e-2)
    held = free._replace(**{name: 10.0, f"use_{name}": True})
    walks = learn(module.build(stream.problem, shape), stream, [(free, 0), (held, 0)])
    far = [(walk.state.sensitivity.sqrt() * (flat(walk) - anchor(walk, module, stream, shape, h)))
           .norm() for walk, h in zip(walks, (free, held), strict=True)]  # fmt: skip
    assert far[1] < 0.75 * far[0]


def flat(walk):
    return torch.cat([p.flatten() for p in walk.state.embedder.values()])


def anchor(walk, module, stream, shape, hyper):
    """The trunk after the first task of the same walk."""
    (first,) = learn(module.build(stream.problem, shape), first_tasks(stream, 1), [(hyper, 0)])
    return flat(first)


# ---- a method like any other ---------------------------------------------------------------------


@pytest.mark.parametrize("plain", [lgm_memory, lgm_vae])  # tracing that of a GAN takes a minute
def test_a_trial_has_the_same_numbers_alone_and_among_others(plain, blobs):
    module = in_front_of(plain)
    method, task = module.build(blobs.problem, small(module)), blobs.batch(0)
    steps = {f: 5 for f in module.Hyper._fields if f.endswith("steps") and f != "critic_steps"}
    hypers = [module.Hyper(**steps, embedder_lr=r) for r in (1e-3, 1e-2, 1e-4)]
    engine = Engine(method, blobs.problem)
    lanes = [engine.start(hyper, k) for k, hyper in enumerate(hypers)]
    for t in range(2):
        task = blobs.batch(t)
        together = learn_task(engine, lanes, task, t)
        alone = [learn_task(engine, [one], task, t)[0] for one in lanes]
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a.state, b.state, rtol=1e-9, atol=1e-9)
        lanes = [one._replace(state=a.state) for one, a in zip(lanes, together, strict=True)]
    assert alone[0].losses.keys() >= {"classifier", "embedder_ewc", "embedder_mas"}


def test_it_learns_images_with_a_convolutional_trunk(blobs):
    module = in_front_of(lgm_memory)
    pictures = replace(
        blobs, problem=blobs.problem._replace(input_shape=(2, 2, 2)),
        tasks=tuple(
            replace(task, **{
                part: Split(split.x.reshape(-1, 2, 2, 2), split.y)
                for part, split in (("train", task.train), ("validation", task.validation))
            })
            for task in blobs.tasks[:1]
        ),
    )  # fmt: skip
    shape = module.Shape(network="convolutional", embedder_hidden=16, classifier_hidden=16)
    hyper = module.Hyper(classifier_steps=80, classifier_lr=1e-2, embedder_lr=1e-2)
    (walk,) = learn(module.build(pictures.problem, shape), pictures, [(hyper, 0)])
    assert walk.state.embedder["k0"].shape == (16, 2, 3, 3)
    assert walk.accuracy[0, 0] > 0.9


@pytest.mark.parametrize("plain", [lgm_ae, genmem_vae])
def test_a_method_without_a_classifier_of_real_examples_is_refused(plain, blobs):
    module = in_front_of(plain)
    with pytest.raises(ValueError, match="does not go with embedder 'trainable'"):
        module.build(blobs.problem, module.Shape())
