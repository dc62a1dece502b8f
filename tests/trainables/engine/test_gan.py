"""What LGM with a GAN adds where the generator is told the classes' attributes: creativity."""

import math

import pytest
import torch
from torch.distributions import Categorical, kl_divergence
from torch.utils._pytree import tree_map

from tests.conftest import F64, generator, tiny
from tests.trainables.lgm_acgan_in_torch import forward, lane
from trainables import lgm_acgan, lgm_cgan
from trainables.engine import gan, noise
from trainables.engine.losses import confidence

VARIANTS = [lgm_acgan, lgm_cgan]
ATTRIBUTES = torch.nn.functional.normalize(
    torch.rand(6, 5, generator=generator(9), dtype=F64), dim=-1
)
each_variant = pytest.mark.parametrize("variant", VARIANTS)


def told(problem):
    return problem._replace(attributes=ATTRIBUTES, attributes_in=("generator",))


def step_of(variant, problem, task, hyper):
    """Nets, a state and the noise of a generator's step."""
    shape = tiny(variant)
    method = variant.build(problem, shape)
    drawn = method.draw(generator(4), "generator", 1, task, hyper)
    state = method.begin_task(
        method.init(generator(0)), method.init(generator(1)), task, lane(hyper)
    )
    return variant.networks(problem, shape), state, tree_map(lambda leaf: leaf[0], drawn), method


def test_confidence_is_the_divergence_from_the_uniform_distribution():
    logits = torch.randn(7, 6, generator=generator(0), dtype=F64)
    classes = torch.tensor([True, True, False, True, False, True])
    p = Categorical(logits=logits[:, classes])
    expected = kl_divergence(p, Categorical(torch.ones(7, 4, dtype=F64))).mean()
    torch.testing.assert_close(confidence(logits, classes), expected)
    torch.testing.assert_close(confidence(0 * logits, classes), torch.tensor(0.0, dtype=F64))
    certain = 1e4 * torch.nn.functional.one_hot(torch.tensor([0, 3, 5]), 6).to(F64)
    torch.testing.assert_close(confidence(certain, classes), torch.tensor(math.log(4), dtype=F64))


@each_variant
def test_hallucinated_classes_lie_between_two_seen_ones(variant, blobs):
    problem, task = told(blobs.problem), blobs.batch(1)
    nets, state, drawn, _ = step_of(variant, problem, task, variant.Hyper())
    assert task.seen[drawn["one"]].all()
    assert task.seen[drawn["other"]].all()
    assert (drawn["one"] != drawn["other"]).all()
    x, code = gan.hallucinated(nets, state.generator, drawn)
    torch.testing.assert_close(code.norm(dim=-1), torch.ones(len(x), dtype=F64))
    a, b = ATTRIBUTES[drawn["one"]], ATTRIBUTES[drawn["other"]]
    alpha = 0.2 + 0.6 * drawn["alpha"]
    mixed = alpha * a + (1 - alpha) * b
    torch.testing.assert_close(code, mixed / mixed.square().sum(-1, keepdim=True).sqrt())
    expected = forward(state.generator, torch.cat([drawn["z_new"], code], 1), 0.01)
    torch.testing.assert_close(x, expected)


@each_variant
@pytest.mark.parametrize("used", [True, False])
def test_creativity_is_realism_and_surprise(variant, used, blobs):
    problem, task = told(blobs.problem), blobs.batch(1)
    hyper = variant.Hyper(use_creativity=used, creativity_adversarial=0.5, creativity_entropy=0.3)
    nets, state, drawn, method = step_of(variant, problem, task, hyper)
    batch = task._replace(x=task.x[:8], y=task.y[:8])
    _, terms = method.steps["generator"](state, batch, lane(hyper), drawn)
    x, code = gan.hallucinated(nets, state.generator, drawn)
    critic_sees = x if variant is lgm_acgan else torch.cat([x, code], 1)
    realism = -forward(state.critic, critic_sees, 0.0)[:, 0].mean()
    p = Categorical(logits=forward(state.classifier, x, 0.0)[:, task.seen])
    uniform = Categorical(torch.ones(len(x), int(task.seen.sum()), dtype=F64))
    surprise = kl_divergence(p, uniform).mean()
    torch.testing.assert_close(terms["creativity_adversarial"], realism * used)
    torch.testing.assert_close(terms["creativity_entropy"], surprise * used)


@each_variant
def test_coefficients_of_zero_remove_creativity(variant, blobs):
    problem, task = told(blobs.problem), blobs.batch(1)
    off = variant.Hyper(use_creativity=False)
    zero = variant.Hyper(use_creativity=True, creativity_adversarial=0.0, creativity_entropy=0.0)
    on = variant.Hyper(use_creativity=True, creativity_adversarial=1.0, creativity_entropy=1.0)
    _, state, drawn, method = step_of(variant, problem, task, off)
    batch = task._replace(x=task.x[:8], y=task.y[:8])
    step = method.steps["generator"]
    moved = [step(state, batch, lane(h), drawn)[0].generator for h in (off, zero, on)]
    torch.testing.assert_close(moved[0], moved[1])
    assert (moved[0]["w0"] - moved[2]["w0"]).abs().max() > 1e-5


@each_variant
def test_nothing_is_hallucinated_without_attributes(variant, blobs):
    task = blobs.batch(1)
    for problem in (
        blobs.problem,
        told(blobs.problem)._replace(attributes_in=("classifier",)),
    ):
        _, state, drawn, method = step_of(variant, problem, task, variant.Hyper())
        assert "alpha" not in drawn
        batch = task._replace(x=task.x[:8], y=task.y[:8])
        _, terms = method.steps["generator"](state, batch, lane(variant.Hyper()), drawn)
        assert not any(name.startswith("creativity") for name in terms)


@pytest.mark.parametrize("known", [[2], [1, 4], [0, 1, 2, 3, 5]])
def test_pairs_are_different_and_equally_likely(known):
    classes = torch.zeros(6, dtype=torch.bool)
    classes[known] = True
    one, other = noise.pairs(generator(0), classes, 100, 50)
    assert classes[one].all()
    assert classes[other].all()
    assert ((one == other).float().mean() > 0) == (len(known) == 1)
    counts = torch.zeros(6, 6).index_put_((one, other), torch.ones(100, 50), accumulate=True)
    pairs = len(known) * max(1, len(known) - 1)
    expected = 5000 / pairs
    assert (counts > 0).sum() == pairs
    # Each count is binomial: five standard deviations.
    assert (counts[counts > 0] - expected).abs().max() <= 5 * expected**0.5
