"""LGM-cGAN: its critic and its losses against plain torch; what it shares is LGM-AC-GAN's."""

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import F64, first_tasks, generator, tiny
from tests.trainables import lgm_acgan_in_torch
from tests.trainables.lgm_acgan_in_torch import (
    PLAYERS,
    by_method,
    classifier_terms,
    forward,
    g_of,
    in_plain_torch,
    players,
    scene,
)
from trainables import lgm_cgan
from trainables.engine.learn import learn

SHAPE = tiny(lgm_cgan)
TERMS = (
    "generator_adversarial",
    "critic_adversarial",
    "gradient_penalty",
    "generator_prototype",
    "generator_rehearsal",
    "classifier_rehearsal",
)
# As LGM-AC-GAN's: every term on, every coefficient and rate different from the others.
HYPER = lgm_cgan.Hyper(*(getattr(lgm_acgan_in_torch.HYPER, f) for f in lgm_cgan.Hyper._fields))
each_condition = pytest.mark.parametrize("condition", lgm_cgan.CONDITIONS)


# ---- the method once more, in plain torch --------------------------------------------------------


def concatenating(critic, x, y):
    return forward(critic, torch.cat([x, F.one_hot(y, 6).to(F64)], 1), 0.0)[:, 0]


def projecting(critic, x, y):
    phi = F.relu(F.linear(x, critic["w0"].T, critic["b0"]))
    of_class = F.embedding(y, critic["class"])
    return phi @ critic["all"] + (of_class * phi).sum(1) + critic["bias"]


VALUE = {"concatenation": concatenating, "projection": projecting}


def terms_of(condition):
    value = VALUE[condition]

    def critic_terms(critic, state, batch, hyper, noise):
        fake = g_of(state.generator, noise["z_critic"], batch.y).detach()
        between = (batch.x + noise["mix"] * (fake - batch.x)).requires_grad_()
        (slope,) = torch.autograd.grad(
            value(critic, between, batch.y).sum(), between, create_graph=True
        )
        return {
            "critic_adversarial": value(critic, fake, batch.y).mean()
            - value(critic, batch.x, batch.y).mean(),
            "gradient_penalty": (slope.norm(dim=1) - 1).square().mean(),
        }

    def generator_terms(params, state, batch, hyper, noise):
        fake = g_of(params, noise["z"], batch.y)
        of_class = [
            F.mse_loss(fake[batch.y == c].mean(0), state.prototypes[c]) for c in batch.y.unique()
        ]
        now = g_of(params, noise["z_old"], noise["y_old"])
        then = g_of(state.frozen, noise["z_old"], noise["y_old"])
        return {
            "generator_adversarial": -value(state.critic, fake, batch.y).mean(),
            "generator_prototype": torch.stack(of_class).mean(),
            "generator_rehearsal": F.mse_loss(now, then.detach()),
        }

    return {"critic": critic_terms, "generator": generator_terms, "classifier": classifier_terms}


def at_scene(stream, turns="DGc", condition="concatenation"):
    shape = SHAPE._replace(condition=condition)
    return scene(stream, turns, shape=shape, variant=lgm_cgan)


# ---- its equations -------------------------------------------------------------------------------


@each_condition
@pytest.mark.parametrize("turns", ["D", "G", "DDGc"])
def test_steps_are_those_of_plain_torch(turns, condition, blobs):
    at = at_scene(blobs, turns * 6, condition)
    state, logs = by_method(at, HYPER)
    expected = in_plain_torch(at, HYPER, terms_of=terms_of(condition))
    torch.testing.assert_close(players(state), expected, rtol=1e-9, atol=1e-9)
    for (phase, batch, noise), log in zip(at.steps[:1], logs[:1], strict=True):
        terms = terms_of(condition)[phase](getattr(at.state, phase), at.state, batch, HYPER, noise)
        torch.testing.assert_close(log, {name: term.detach() for name, term in terms.items()})


@pytest.mark.parametrize("term", TERMS)
def test_a_coefficient_of_zero_removes_its_term(term, blobs):
    at = at_scene(blobs, "DGc" * 3)
    state, logs = by_method(at, HYPER._replace(**{term: 0.0}))
    of_term = terms_of("concatenation")
    without = in_plain_torch(at, HYPER, without=(term,), terms_of=of_term)
    torch.testing.assert_close(players(state), without, rtol=1e-9, atol=1e-9)
    with_it, _ = by_method(at, HYPER)  # and only then
    apart = [
        (a - without[name][key]).abs().max()
        for name, player in players(with_it).items()
        for key, a in player.items()
    ]
    assert max(apart) > 1e-4
    assert set(TERMS) == {name for log in logs for name in log} - {"classifier"}


@each_condition
def test_the_critic_knows_classes_apart(condition, blobs):
    at, x = at_scene(blobs, condition=condition), blobs.batch(1).x[:1]
    values = lgm_cgan.value(at.nets, at.state.critic, x.expand(6, -1), torch.eye(6, dtype=F64))
    assert len(values.unique()) == 6


def test_an_unknown_condition_is_refused(blobs):
    with pytest.raises(ValueError, match=r"unknown condition 'project'.*'projection'"):
        lgm_cgan.build(blobs.problem, SHAPE._replace(condition="project"))


def test_players_are_those_of_the_loop(blobs):
    method = lgm_cgan.build(blobs.problem, SHAPE)
    assert set(method.steps) == set(PLAYERS.values())
    state = method.init(generator(0))
    assert state.critic["w0"].shape == (8 + 6, SHAPE.critic_hidden)


@each_condition
def test_replay_keeps_what_fine_tuning_forgets(condition, blobs):
    stream = first_tasks(blobs, 2)
    shape = lgm_cgan.Shape("perceptron", condition, 4, 32, 1, 32, 1, 32, 1, 16, 16)
    hyper = lgm_cgan.Hyper(
        gan_steps=60,
        classifier_steps=60,
        critic_steps=1,
        generator_lr=5e-3,
        critic_lr=1e-2,
        classifier_lr=1e-2,
        gradient_penalty=1.0,
    )
    off = hyper._replace(classifier_rehearsal=0.0)
    method = lgm_cgan.build(stream.problem, shape)
    with_replay, without = learn(method, stream, [(hyper, 0), (off, 0)])
    assert with_replay.accuracy[1].min() > 0.7
    assert without.accuracy[1, 0] < 0.3
