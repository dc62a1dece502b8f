"""Importances against closed forms and one example at a time."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad

from tests.conftest import F64, generator
from trainables.engine import importance
from trainables.engine.method import Batch
from trainables.engine.nets import mlp
from trainables.engine.optim import flatten


def linear(params, x):
    return x @ params["w"]


def some(stream, t=1, n=12):
    task = stream.batch(t)
    return task._replace(x=task.x[:n], y=task.y[:n])


@pytest.fixture
def weight():
    return torch.randn(8, 6, generator=generator(3), dtype=F64)


def by_hand(task, weight, of_example):
    """Mean over examples of a function of (log-probabilities, logits, y), of those that compete."""
    total = torch.zeros_like(weight)
    for x, y in zip(task.x, task.y, strict=True):
        w = weight.clone().requires_grad_()
        columns = task.rivals[y].nonzero()[:, 0]
        logits = (x @ w)[columns]
        total += of_example(w, F.log_softmax(logits, -1), logits, columns, y) / len(task.y)
    return total.flatten()


def slope(value, w):
    return torch.autograd.grad(value, w, retain_graph=True)[0]


@pytest.mark.parametrize("scenario", ["blobs", "blobs_by_task"])
def test_fisher_informations_are_those_of_one_example_at_a_time(scenario, weight, request):
    task = some(request.getfixturevalue(scenario))
    exact = by_hand(
        task, weight,
        lambda w, log_p, *_: sum(p.exp().detach() * slope(p, w).square() for p in log_p),
    )  # fmt: skip
    params = {"w": weight}
    torch.testing.assert_close(importance.exact_fisher(linear, params, task), exact)
    true = by_hand(
        task, weight,
        lambda w, log_p, _, columns, y: slope(log_p[(columns == y).nonzero()[0, 0]], w).square(),
    )  # fmt: skip
    torch.testing.assert_close(importance.empirical_fisher(linear, params, task), true)
    chances = iter(label := torch.rand(12, generator=generator(1), dtype=F64))

    def drawn(w, log_p, *_):
        return slope(log_p[int((log_p.exp().cumsum(-1) < next(chances)).sum())], w).square()

    sampled = by_hand(task, weight, drawn)
    torch.testing.assert_close(importance.fisher(linear, params, task, label), sampled)


def test_fisher_of_a_logistic_regression_is_its_closed_form():
    """p (1 − p) x² for each weight of each of two classes."""
    x = torch.randn(40, 3, generator=generator(0), dtype=F64)
    weight = torch.randn(3, 2, generator=generator(1), dtype=F64)
    everyone = torch.ones(2, dtype=torch.bool)
    y = torch.zeros(40, dtype=torch.int64)
    task = Batch(x, y, everyone, ~everyone, torch.ones(2, 2, dtype=torch.bool))
    p = (x @ weight).softmax(-1)
    expected = (x.square()[:, :, None] * (p * (1 - p))[:, None, :]).mean(0)
    found = importance.exact_fisher(linear, {"w": weight}, task)
    torch.testing.assert_close(found, expected.flatten())
    # Labels drawn often enough come to the same, the true ones do not.
    many = task._replace(x=x.repeat(500, 1), y=y.repeat(500))
    label = torch.rand(20_000, generator=generator(2), dtype=F64)
    sampled = importance.fisher(linear, {"w": weight}, many, label)
    torch.testing.assert_close(sampled, expected.flatten(), rtol=0.05, atol=0.0)
    true = importance.empirical_fisher(linear, {"w": weight}, task)
    assert ((true / expected.flatten() - 1).abs() > 0.1).all()


def test_more_examples_than_are_held_at_once_make_no_difference(blobs, monkeypatch):
    net = mlp([8, 5, 6], dtype=F64)
    about = net.apply, net.init(generator(0)), some(blobs, n=20)
    found = importance.exact_fisher(*about), importance.sensitivity(*about)
    monkeypatch.setattr(importance, "CHUNK", 7)
    in_parts = importance.exact_fisher(*about), importance.sensitivity(*about)
    torch.testing.assert_close(found, in_parts)


def test_sensitivities_are_those_of_one_example_at_a_time(blobs_by_task, weight):
    task = some(blobs_by_task)
    expected = by_hand(
        task, weight, lambda w, log_p, logits, *_: slope(logits.square().sum(), w).abs()
    )
    torch.testing.assert_close(importance.sensitivity(linear, {"w": weight}, task), expected)


def test_importances_in_units_of_their_mean():
    given = torch.tensor([0.0, 1e-30, 3e-30], dtype=F64)
    expected = torch.tensor([0.0, 0.75, 2.25], dtype=F64)
    torch.testing.assert_close(importance.in_units_of_mean(given), expected)
    assert not importance.in_units_of_mean(torch.zeros(4)).any()


def test_importances_in_units_of_their_range():
    given = torch.tensor([3.0, 1.0, 2.0], dtype=F64)
    expected = torch.tensor([1.0, 0.0, 0.5], dtype=F64)
    torch.testing.assert_close(importance.in_units_of_range(given), expected)
    torch.testing.assert_close(importance.in_units_of_range(1e-30 * given), expected)
    assert not importance.in_units_of_range(torch.full((4,), 7.0)).any()


def test_the_slope_of_a_displacement_is_twice_importance_times_distance():
    params, g = mlp([2, 3], dtype=F64).init(generator(0)), generator(1)
    anchor, weights = (torch.rand(9, generator=g, dtype=F64) for _ in range(2))
    found = grad(importance.displacement)(params, anchor, weights)
    torch.testing.assert_close(flatten(found), 2 * weights * (flatten(params) - anchor))


def test_chosen_examples_are_those_with_the_smallest_numbers(blobs):
    task = blobs.batch(0)
    order = torch.rand(len(task.y), generator=generator(0))
    found = importance.chosen(task, order, 5)
    rows = [int(i) for i in order.sort().indices[:5]]
    assert torch.equal(found.x, task.x[rows]) and torch.equal(found.y, task.y[rows])
    assert len(importance.chosen(task, order, 10**6).y) == len(task.y)
