"""Accuracies on classes learned and to come, from logits made by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trainables.engine import metrics, zero_shot

LOGITS = torch.tensor(
    [[3.0, 0, 0, 0], [2, 1, 0, 0], [0, 3, 1, 2], [0, 1, 3, 0], [2, 0, 1, 0], [0, 0, 1, 3]],
    dtype=torch.float64,
)
Y = torch.tensor([0, 1, 1, 2, 2, 3])
SPLITS = [SimpleNamespace(x=LOGITS[:3], y=Y[:3]), SimpleNamespace(x=LOGITS[3:], y=Y[3:])]


def test_every_example_is_answered_among_all_classes():
    seen = torch.tensor([True, True, False, False])
    found = zero_shot.measure(lambda x: x, SPLITS, seen)
    assert found["seen_accuracy"] == found["unseen_accuracy"] == pytest.approx(2 / 3)
    assert found["harmonic_mean"] == pytest.approx(2 / 3)
    area = metrics.area_under_seen_unseen(LOGITS.numpy(), Y.numpy(), seen.numpy())
    assert found["area_under_seen_unseen"] == area


def test_nothing_is_to_come_after_the_last_task():
    found = zero_shot.measure(lambda x: x, SPLITS, torch.ones(4, dtype=torch.bool))
    assert found["seen_accuracy"] == pytest.approx(4 / 6)
    assert all(np.isnan(found[name]) for name in metrics.ZERO_SHOT[1:])
