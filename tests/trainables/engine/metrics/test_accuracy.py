"""Continual-learning metrics on matrices whose values are worked out by hand."""

import doctest

import numpy as np
import pytest

from trainables.engine import metrics
from trainables.engine.metrics import accuracy, transfer, zero_shot

NAN = np.nan

# Task 0 is best after task 1 (0.9), task 1 right after it was learned (0.7).
A = np.array(
    [
        [0.8, NAN, NAN],
        [0.9, 0.7, NAN],
        [0.5, 0.6, 1.0],
    ]
)
EXAMPLES = [10, 30, 60]

OF_THE_MATRIX = [
    metrics.average_accuracy,
    metrics.average_accuracy_curve,
    metrics.forgetting,
    metrics.backward_transfer,
    metrics.learning_accuracy,
    metrics.retained_accuracy,
]
WITH_EXAMPLES = [
    metrics.joint_accuracy,
    metrics.joint_accuracy_curve,
    metrics.average_incremental_accuracy,
]
ALL = OF_THE_MATRIX + [lambda a, f=f: f(a, EXAMPLES[: np.shape(a)[-1]]) for f in WITH_EXAMPLES]


def test_examples_in_the_docstrings():
    for module in (accuracy, transfer, zero_shot):
        results = doctest.testmod(module)
        assert results.failed == 0
        assert results.attempted > 0


def test_average_accuracy():
    assert metrics.average_accuracy(A) == pytest.approx((0.5 + 0.6 + 1.0) / 3)
    np.testing.assert_allclose(metrics.average_accuracy_curve(A), [0.8, 0.8, 0.7])


def test_joint_accuracy_weighs_tasks_by_their_examples():
    # After task 1: (10 · 0.9 + 30 · 0.7) / 40. At the end: (10 · 0.5 + 30 · 0.6 + 60 · 1.0) / 100.
    np.testing.assert_allclose(metrics.joint_accuracy_curve(A, EXAMPLES), [0.8, 0.75, 0.83])
    assert metrics.joint_accuracy(A, EXAMPLES) == pytest.approx(0.83)
    assert metrics.average_incremental_accuracy(A, EXAMPLES) == pytest.approx(2.38 / 3)


def test_joint_accuracy_of_equal_tasks_is_average_accuracy():
    assert metrics.joint_accuracy(A, [7, 7, 7]) == pytest.approx(metrics.average_accuracy(A))


def test_a_k_reads_one_run_at_several_times():
    at = {k: metrics.a_k(A, EXAMPLES, classes=[2, 3, 5], k=k) for k in (2, 5, 10)}
    assert at == {2: pytest.approx(0.8), 5: pytest.approx(0.75), 10: pytest.approx(0.83)}


def test_forgetting_starts_from_the_best_and_leaves_the_newest_task_out():
    assert metrics.forgetting(A) == pytest.approx(((0.9 - 0.5) + (0.7 - 0.6)) / 2)


def test_forgetting_is_negative_where_later_tasks_help():
    a = [[0.5, 0.0], [0.75, 0.9]]
    assert metrics.forgetting(a) == pytest.approx(-0.25)
    assert metrics.backward_transfer(a) == pytest.approx(0.25)


def test_accuracy_before_a_task_is_learned_is_not_forgotten():
    a = A.copy()
    a[0, 1:], a[1, 2] = 1.0, 1.0  # zero-shot, better than ever after
    for metric in ALL:
        np.testing.assert_array_equal(metric(a), metric(A))


def test_backward_transfer_starts_from_the_diagonal():
    assert metrics.backward_transfer(A) == pytest.approx(((0.5 - 0.8) + (0.6 - 0.7)) / 2)


def test_learning_accuracy():
    assert metrics.learning_accuracy(A) == pytest.approx(2.5 / 3)


def test_retained_accuracy_leaves_the_newest_task_out():
    assert metrics.retained_accuracy(A) == pytest.approx(0.55)


@pytest.mark.parametrize("metric", ALL)
def test_partial_walk_is_the_leading_block(metric):
    unfinished = np.full((3, 3), NAN)
    unfinished[:2, :2] = A[:2, :2]
    np.testing.assert_array_equal(metric(unfinished[:2, :2]), metric(A[:2, :2]))
    assert np.isfinite(metric(unfinished[:2, :2])).all()


def test_after_one_task():
    one = A[:1, :1]
    assert metrics.average_accuracy(one) == metrics.joint_accuracy(one, [10]) == 0.8
    assert metrics.learning_accuracy(one) == 0.8
    assert np.isnan(metrics.retained_accuracy(one))
    assert metrics.retained_accuracy(np.stack([one, one])).shape == (2,)
    for metric in (metrics.forgetting, metrics.backward_transfer):
        with pytest.raises(ValueError, match="T >= 2"):
            metric(one)


@pytest.mark.parametrize("metric", ALL)
def test_leading_axes_are_kept(metric):
    many = np.random.default_rng(0).random((2, 4, 3, 3))
    alone = [[metric(a) for a in row] for row in many]
    np.testing.assert_allclose(metric(many), alone, rtol=1e-12)


def test_examples_may_differ_along_leading_axes():
    sizes = np.array([[10, 30, 60], [1, 1, 1]])
    np.testing.assert_allclose(metrics.joint_accuracy(np.stack([A, A]), sizes), [0.83, 0.7])


@pytest.mark.parametrize("metric", [m for m in ALL if m is not metrics.learning_accuracy])
def test_nan_in_the_last_row_shows(metric):
    a = A.copy()
    a[2, 0] = NAN
    assert np.isnan(metric(a)).any()


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("shape", [(2, 3), (3,), (0, 0), (4, 3, 2)])
def test_what_is_not_square_is_refused(metric, shape):
    with pytest.raises(ValueError, match=r"expected \(\.\.\., T, T\)"):
        metric(np.zeros(shape))


def test_summary_holds_what_is_defined():
    after_one, after_three = metrics.summary(A[:1, :1], EXAMPLES[:1]), metrics.summary(A, EXAMPLES)
    assert set(after_three) - set(after_one) == metrics.FROM_TWO_TASKS
    assert list(after_three) == list(metrics.SUMMARY)
    assert after_three["joint_accuracy"] == pytest.approx(0.83)
    assert after_three["retained_accuracy"] == pytest.approx(0.55)
    assert all(type(value) is float for value in after_three.values())


@pytest.mark.parametrize("examples", [[1, 2], [1, 2, 0], [1, 2, NAN], 3])
def test_examples_must_be_positive_and_one_a_task(examples):
    with pytest.raises(ValueError, match="3 numbers of examples"):
        metrics.joint_accuracy(A, examples)


def test_a_k_between_two_boundaries_is_refused():
    with pytest.raises(ValueError, match=r"\[2, 5, 10\], got 4"):
        metrics.a_k(A, EXAMPLES, classes=[2, 3, 5], k=4)
    with pytest.raises(ValueError, match="3 numbers of classes"):
        metrics.a_k(A, EXAMPLES, classes=[2, 3], k=2)


def test_forgetting_speed_is_per_task_learned_since():
    assert metrics.forgetting_speed(A) == pytest.approx(((0.8 - 0.5) / 2 + (0.7 - 0.6) / 1) / 2)


def test_forgetting_speed_of_two_tasks_is_minus_backward_transfer():
    two = A[:2, :2]
    assert metrics.forgetting_speed(two) == pytest.approx(-metrics.backward_transfer(two))
