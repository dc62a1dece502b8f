"""Transfer, intransigence and the learning curve on values worked out by hand."""

import numpy as np
import pytest

from trainables.engine import metrics

# With accuracies on tasks to come; and those of the untrained network.
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
    found = metrics.intransigence(WHOLE, [0.8, 0.9, 0.95])
    np.testing.assert_allclose(found, [0.0, 0.2, -0.05], atol=1e-12)


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
            metric(WHOLE, wrong)
