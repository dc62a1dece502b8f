"""Accuracies on classes learned and to come: closed forms, and brute force."""

import numpy as np
import pytest

from trainables.engine import metrics


def test_harmonic_mean():
    found = metrics.harmonic_mean([0.6, 1.0, 0.0, 0.0], [0.3, 1.0, 0.9, 0.0])
    np.testing.assert_allclose(found, [0.4, 1.0, 0.0, 0.0])


def brute_force(logits, y, seen):
    """The pairs of accuracies at a constant between each two gaps of the logits, one by one."""
    gaps = logits[:, seen].max(1) - logits[:, ~seen].max(1)
    levels = np.unique(gaps)
    between = (levels[1:] + levels[:-1]) / 2
    pairs = []
    for shift in (levels[0] - 1, *between, levels[-1] + 1):
        answer = (logits + np.where(seen, 0.0, shift)).argmax(1)
        hit, known = answer == y, seen[y]
        pairs.append((hit[known].mean(), hit[~known].mean()))
    return np.array(pairs).T


@pytest.mark.parametrize("n", [2, 5, 40, 300])
@pytest.mark.parametrize("seed", range(5))
def test_area_under_seen_unseen_is_that_of_brute_force(n, seed):
    rng, classes = np.random.default_rng(seed), 6
    seen = np.arange(classes) < rng.integers(1, classes)
    y = rng.integers(classes, size=n)
    y[:2] = 0, classes - 1  # one of each kind
    logits = rng.normal(size=(n, classes)) + 1.5 * (y[:, None] == np.arange(classes))
    s, u = brute_force(logits, y, seen)
    found = metrics.seen_unseen_curve(logits, y, seen)
    np.testing.assert_allclose(found, [s, u], atol=1e-12)
    area = sum((s[i] + s[i + 1]) / 2 * (u[i + 1] - u[i]) for i in range(len(s) - 1))
    assert metrics.area_under_seen_unseen(logits, y, seen) == pytest.approx(area)


def test_examples_with_the_same_gap_turn_together():
    logits = np.array([[2.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    s, u = metrics.seen_unseen_curve(logits, [0, 1, 0, 1], [True, False])
    np.testing.assert_allclose(s, [1.0, 0.5, 0.0])
    np.testing.assert_allclose(u, [0.0, 0.5, 1.0])
    assert metrics.area_under_seen_unseen(logits, [0, 1, 0, 1], [True, False]) == 0.5


def test_perfect_answers_on_both_sides_have_area_1():
    logits = np.array([[3.0, 0.0, 1.0, 0.0], [0.0, 3.0, 0.0, 1.0], [2.0, 0.0, 1.5, 0.0]])
    seen = np.array([True, True, False, False])
    assert metrics.area_under_seen_unseen(logits, [0, 1, 2], seen) == 1.0


def test_one_kind_of_classes_or_examples_alone_is_refused():
    logits = np.eye(3)
    for y, seen in (
        ([0, 1, 2], [True] * 3),
        ([0, 1, 2], [False] * 3),
        ([0, 0, 1], [True, True, False]),
    ):
        with pytest.raises(ValueError, match="examples of seen and of unseen classes"):
            metrics.seen_unseen_curve(logits, y, seen)
