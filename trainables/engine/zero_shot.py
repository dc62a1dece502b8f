"""What a classifier that is told the attributes of classes makes of those it has not met yet."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.engine import metrics

Split = Any  # x (N, *input) and y (N,) of one task

AT_ONCE = 4096  # examples that are classified together


@torch.no_grad()
def measure(
    predict: Callable[[Tensor], Tensor], splits: Sequence[Split], seen: Tensor
) -> dict[str, float]:
    """Accuracies among all classes, and how they trade off.

    Args:
        predict: x ``(N, *input)`` -> logits ``(N, C)``.
        splits: held-out data of all tasks, those to come too.
        seen: ``(C,)`` bool, the classes learned.

    Returns:
        ``metrics.ZERO_SHOT``, fractions in [0, 1]: accuracy on examples of the classes learned, and
        of those to come, every example answered among all classes; their harmonic mean; AUSUC
        (``metrics.area_under_seen_unseen``). Where no class is to come, the first is plain accuracy
        and the others are NaN.
    """
    x, y = torch.cat([split.x for split in splits]), torch.cat([split.y for split in splits])
    logits = torch.cat([predict(part).cpu() for part in x.split(AT_ONCE)]).double().numpy()
    labels, known = y.numpy(), seen.numpy()
    right, old = logits.argmax(-1) == labels, known[labels]
    s = float(right[old].mean())
    if old.all():
        return dict(zip(metrics.ZERO_SHOT, (s, np.nan, np.nan, np.nan), strict=True))
    u = float(right[~old].mean())
    area = metrics.area_under_seen_unseen(logits, labels, known)
    return dict(
        zip(metrics.ZERO_SHOT, (s, u, float(metrics.harmonic_mean(s, u)), area), strict=True)
    )
