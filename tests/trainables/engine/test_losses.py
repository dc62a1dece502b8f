"""Loss terms against ``torch.nn.functional``, closed forms and limits."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence
from torch.func import grad

from tests.conftest import F64, generator
from trainables.engine.losses import (
    class_means,
    cross_entropy,
    distillation,
    gaussian_kl,
    gradient_penalty,
    log_probs,
    log_probs_in_groups,
    rehearsed_cross_entropy,
    similarity_drift,
    unit_rows,
    weighted,
)

CLASSES = torch.tensor([True, False, True, True, False])
COLUMNS = [0, 2, 3]
Y = torch.tensor([0, 3, 2, 2, 0, 3])


def logits(seed=0, scale=3.0):
    return scale * torch.randn(len(Y), 5, generator=generator(seed), dtype=F64)


def among_columns(y):
    return torch.tensor([COLUMNS.index(c) for c in y.tolist()])


def test_cross_entropy_is_that_of_torch_on_the_competing_columns():
    expected = F.cross_entropy(logits()[:, COLUMNS], among_columns(Y))
    torch.testing.assert_close(cross_entropy(logits(), Y, CLASSES), expected)


@pytest.mark.parametrize("s", [0.0, 0.1, 0.7])
def test_smoothed_targets_give_the_rivals_equal_shares(s):
    target = torch.full((len(Y), 3), s / 2, dtype=F64)
    target[torch.arange(len(Y)), among_columns(Y)] = 1 - s
    expected = F.cross_entropy(logits()[:, COLUMNS], target)
    torch.testing.assert_close(cross_entropy(logits(), Y, CLASSES, s), expected)


@pytest.mark.parametrize("s", [0.0, 0.1, 0.7])
def test_targets_sum_to_one(s):
    # With all log p equal to −log n the loss is log n times the sum of the targets.
    loss = cross_entropy(torch.zeros(len(Y), 5, dtype=F64), Y, CLASSES, s)
    torch.testing.assert_close(loss, torch.tensor(3.0, dtype=F64).log())


def test_each_example_may_have_competitors_of_its_own():
    rows = torch.tensor([[1, 0, 1, 0, 0], [0, 0, 1, 1, 1]], dtype=torch.bool)
    y, smoothing = torch.tensor([2, 3]), 0.2
    one_by_one = [
        cross_entropy(logits()[i : i + 1], y[i : i + 1], rows[i], smoothing) for i in range(2)
    ]
    together = cross_entropy(logits()[:2], y, rows, smoothing)
    torch.testing.assert_close(together, torch.stack(one_by_one).mean())


def test_smoothing_has_no_effect_without_rivals():
    alone = torch.zeros(5, dtype=torch.bool)
    alone[2] = True
    y = torch.full((6,), 2)
    assert cross_entropy(logits(), y, alone, 0.3) == 0
    assert not grad(cross_entropy)(logits(), y, alone, 0.3).any()


@pytest.mark.parametrize("s", [0.0, 0.2])
def test_absent_classes_get_no_gradient(s):
    slope = grad(cross_entropy)(logits(), Y, CLASSES, s)
    assert not slope[:, ~CLASSES].any()
    assert (slope[:, CLASSES] != 0).all()


def test_cross_entropy_is_finite_for_very_wrong_answers():
    very_wrong = torch.zeros(1, 5)
    very_wrong[0, 0] = 1e4
    loss = cross_entropy(very_wrong, torch.tensor([2]), CLASSES, 0.1)
    torch.testing.assert_close(loss, torch.tensor(9.5e3))  # 0.9 · 1e4 + 0.05 · (0 + 1e4)


def test_log_probs_are_normalised_over_the_competitors():
    log_p = log_probs(logits(), CLASSES)
    torch.testing.assert_close(log_p[:, CLASSES].exp().sum(-1), torch.ones(len(Y), dtype=F64))
    assert not log_p[:, ~CLASSES].exp().any()


# ---- gradient penalty ----------------------------------------------------------------------------


def points(*shape, seed=0):
    g = generator(seed)
    real = torch.randn(*shape, generator=g, dtype=F64)
    fake = torch.randn(*shape, generator=g, dtype=F64)
    return real, fake, torch.rand(shape[0], 1, generator=g, dtype=F64)


@pytest.mark.parametrize("shape", [(7,), (2, 3, 4)])
def test_penalty_of_a_linear_critic(shape):
    w = torch.randn(shape, generator=generator(3), dtype=F64)
    penalty = gradient_penalty(lambda x: (x * w).flatten(1).sum(-1), *points(6, *shape))
    torch.testing.assert_close(penalty, (w.square().sum().sqrt() - 1) ** 2)


def test_penalty_of_unit_slope_is_zero():
    penalty = gradient_penalty(lambda x: x.flatten(1).sum(-1) / 12**0.5, *points(6, 3, 2, 2))
    assert penalty < 1e-20


def test_penalty_is_taken_between_the_two_points_of_each_example():
    real, fake, mix = points(6, 5)
    # ∇(‖x‖²/2) = x, so the norm of the slope is the norm of the point.
    between = (1 - mix) * real + mix * fake
    expected = (between.norm(dim=1) - 1).square().mean()
    penalty = gradient_penalty(lambda x: x.square().sum(-1) / 2, real, fake, mix)
    torch.testing.assert_close(penalty, expected)


def test_penalty_has_a_finite_gradient_at_slope_zero():
    def penalty(w):
        return gradient_penalty(lambda x: x @ w, *points(6, 5))

    at_zero = torch.zeros(5, dtype=F64)
    torch.testing.assert_close(penalty(at_zero), torch.tensor(1.0, dtype=F64), atol=1e-5, rtol=0)
    assert grad(penalty)(at_zero).isfinite().all()


def test_gradient_of_the_penalty_is_that_of_autograd():
    real, fake, mix = points(6, 5)
    w = torch.randn(5, 4, generator=generator(1), dtype=F64)
    ours = grad(lambda w: gradient_penalty(lambda x: (x @ w).tanh().sum(-1), real, fake, mix))(w)

    w.requires_grad_()
    x = ((1 - mix) * real + mix * fake).requires_grad_()
    (slope,) = torch.autograd.grad((x @ w).tanh().sum(), x, create_graph=True)
    (expected,) = torch.autograd.grad((slope.norm(dim=1) - 1).square().mean(), w)
    torch.testing.assert_close(ours, expected)


# ---- class means ---------------------------------------------------------------------------------


def test_class_means():
    x = torch.randn(len(Y), 2, 3, generator=generator(0), dtype=F64)
    means, counts = class_means(x, Y, 5)
    assert counts.tolist() == [2, 0, 2, 2, 0]
    flat, y = x.reshape(-1, 6).numpy(), Y.numpy()
    for c in range(5):
        expected = flat[y == c].mean(0) if c in COLUMNS else np.zeros(6)
        np.testing.assert_allclose(means[c], expected, rtol=1e-12)


# ---- divergence ----------------------------------------------------------------------------------


def test_gaussian_kl_is_that_of_torch_a_dimension():
    g = generator(0)
    parts = [torch.randn(6, 4, generator=g, dtype=F64) for _ in range(4)]
    q, p = (Normal(parts[i], parts[i + 1].exp().sqrt()) for i in (0, 2))
    torch.testing.assert_close(gaussian_kl(*parts), kl_divergence(q, p).mean())
    assert gaussian_kl(*parts[:2], *parts[:2]) == 0


# ---- distillation --------------------------------------------------------------------------------

GROUP = torch.tensor([0, 1, 0, 1, 4])


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize(("group", "columns"), [
    (GROUP, [[0, 2], [1, 3]]),
    (torch.zeros(5), [[0, 1, 2, 3, 4]]),
    (torch.arange(5), []),
])  # fmt: skip
def test_distillation_is_the_divergence_of_torch_in_each_group(group, columns, temperature):
    student, teacher = logits(0).requires_grad_(), logits(1)
    expected = 0 * student.sum()
    for own in columns:
        log_p = (student[:, own] / temperature).log_softmax(-1)
        q = (teacher[:, own] / temperature).softmax(-1)
        expected = expected + temperature**2 * F.kl_div(log_p, q, reduction="batchmean")
    found = distillation(student, teacher, group, temperature)
    torch.testing.assert_close(found, expected)
    slope = grad(distillation)(student.detach(), teacher, group, temperature)
    torch.testing.assert_close(slope, torch.autograd.grad(expected, student)[0])


def test_a_class_alone_in_its_group_is_left_alone():
    for dtype in (torch.float32, F64):
        slope = grad(distillation)(logits(0).to(dtype), logits(1).to(dtype), GROUP, 2.0)
        assert not slope[:, 4].any() and (slope[:, :4] != 0).all()


def test_distillation_from_itself_is_zero_and_its_slope_keeps_its_size():
    assert distillation(logits(), logits(), GROUP, 2.0) == 0
    # At high temperatures the slope is that of half the squared distance of centred logits, over
    # the number of classes, whatever T.
    one = torch.zeros(5)
    sizes = [grad(distillation)(logits(0), logits(1), one, t).norm() for t in (100.0, 200.0)]
    assert 0.98 < sizes[1] / sizes[0] < 1.02


def test_groups_far_below_the_best_logit_are_finite():
    far = torch.tensor([[0.0, -500.0, 1.0, -501.0, 300.0]])
    log_p = log_probs_in_groups(far, GROUP)
    assert log_p.isfinite().all()
    torch.testing.assert_close(log_p.exp() @ (GROUP[:, None] == GROUP).float(), torch.ones(1, 5))
    assert grad(lambda z: log_probs_in_groups(z, GROUP).sum())(far).isfinite().all()


@pytest.mark.parametrize("learned", [True, False])
def test_similarity_drift_is_the_formula(learned):
    now, before = (torch.randn(6, 4, generator=generator(s), dtype=F64) for s in (0, 1))
    classes = torch.tensor([False, learned])
    g, old = ([[sum(a * b) for b in h] for a in h] for h in (now, before))
    expected = 0.0
    for i in range(6):
        length, old_length = (sum(v**2 for v in rows[i]) ** 0.5 for rows in (g, old))
        pairs = zip(g[i], old[i], strict=True)
        expected += sum((a / length - b / old_length) ** 2 for a, b in pairs) / 6
    found = similarity_drift(now, before, classes)
    torch.testing.assert_close(found, torch.as_tensor(expected * learned, dtype=F64))
    # A rotation of the features changes nothing.
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator(2), dtype=F64)).Q
    torch.testing.assert_close(similarity_drift(now @ turn, before, classes), found)


def test_rows_have_length_one_or_zero():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=F64)
    expected = torch.tensor([[0.6, 0.8], [0.0, 0.0]], dtype=F64)
    torch.testing.assert_close(unit_rows(x), expected)
    assert grad(lambda x: unit_rows(x).sum())(x).isfinite().all()


# ---- sums ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0, 1])
@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_what_is_rehearsed_counts_from_the_second_task_on(weight, t, blobs):
    task, w = blobs.batch(t), torch.randn(8, 6, generator=generator(1), dtype=F64)
    batch, old = task._replace(x=task.x[:7], y=task.y[:7]), blobs.batch(0)
    x, y = old.x[:4], old.y[:4]
    loss, terms = rehearsed_cross_entropy(lambda x: x @ w, batch, x, y, weight, 0.1)
    real, replay = (
        cross_entropy(x @ w, y, task.rivals[y], 0.1) for x, y in ((batch.x, batch.y), (x, y))
    )
    torch.testing.assert_close(loss, real + weight * t * replay)
    expected = {"classifier": real, "classifier_rehearsal": t * replay}
    torch.testing.assert_close(terms, expected)


def test_a_term_is_weighed_by_the_coefficient_of_its_name():
    terms = {name: torch.tensor(value) for name, value in (("a", 2.0), ("b", 3.0))}
    assert weighted(terms, SimpleNamespace(b=10.0, a=0.5, c=9.0)) == 31
