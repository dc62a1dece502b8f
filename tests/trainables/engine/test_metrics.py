"""Continual-learning metrics on matrices whose values are worked out by hand."""

import doctest

import numpy as np
import pytest

from trainables.engine import metrics

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
    results = doctest.testmod(metrics)
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


# ---- transfer, intransigence, speed --------------------------------------------------------------

# As A, with accuracies on tasks to come; and those of the untrained network.
WHOLE = np.array([[0.8, 0.4, 0.5], [0.9, 0.7, 0.3], [0.5, 0.6, 1.0]])
BEFORE = [0.5, 0.5, 0.25]


def test_task_transfer_is_what_each_task_changes():
    expected = [[0.3, -0.1, 0.25], [0.1, 0.3, -0.2], [-0.4, -0.1, 0.7]]
    np.testing.assert_allclose(metrics.task_transfer(WHOLE, BEFORE), expected)
    np.testing.assert_allclose(metrics.task_transfer(WHOLE, BEFORE).sum(0) + BEFORE, WHOLE[-1])


def test_forward_transfer_looks_just_before_a_task():
    assert metrics.forward_transfer(WHOLE, BEFORE) == pytest.approx(
        ((0.4 - 0.5) + (0.3 - 0.25)) / 2
    )


def test_intransigence_is_what_the_reference_has_more():
    found = metrics.intransigence(A, [0.8, 0.9, 0.95])
    np.testing.assert_allclose(found, [0.0, 0.2, -0.05], atol=1e-12)


def test_forgetting_speed_is_per_task_learned_since():
    assert metrics.forgetting_speed(A) == pytest.approx(((0.8 - 0.5) / 2 + (0.7 - 0.6) / 1) / 2)


def test_forgetting_speed_of_two_tasks_is_minus_backward_transfer():
    two = WHOLE[:2, :2]
    assert metrics.forgetting_speed(two) == pytest.approx(-metrics.backward_transfer(two))


def test_learning_curve_area_is_the_plain_mean():
    curve = np.random.default_rng(0).random((2, 3, 11))
    z = curve.mean(1)  # Z_b
    np.testing.assert_allclose(metrics.learning_curve_area(curve), z.sum(-1) / 11)
    zero_shot = metrics.learning_curve_area(curve[..., :1])
    np.testing.assert_allclose(zero_shot, curve[..., 0].mean(-1))
    with pytest.raises(ValueError, match=r"batches \+ 1"):
        metrics.learning_curve_area([0.5, 0.6])


@pytest.mark.parametrize(
    "metric", [metrics.task_transfer, metrics.forward_transfer, metrics.intransigence]
)
def test_a_second_row_of_numbers_has_one_a_task(metric):
    many = np.random.default_rng(0).random((4, 3, 3))
    alone = [metric(a, BEFORE) for a in many]
    np.testing.assert_allclose(metric(many, BEFORE), alone, rtol=1e-12)
    np.testing.assert_allclose(metric(many, [BEFORE] * 4), alone, rtol=1e-12)
    for wrong in ([0.5, 0.5], 0.5):
        with pytest.raises(ValueError, match="expected 3 numbers, one a task"):
            metric(A, wrong)


# ---- classes learned and classes to come ---------------------------------------------------------


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
