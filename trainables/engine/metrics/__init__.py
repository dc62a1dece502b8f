"""Continual-learning metrics: pure functions of what was measured.

``A[i, j]`` is the accuracy on task ``j`` after learning task ``i``, both counted from 0, for ``T``
tasks. A walk that has come as far as ``k`` tasks is measured by its leading ``k × k`` block. NumPy
only: the driver and the notebooks read these too.

Which of the field's "accuracies" a matrix holds is settled where it is filled: *joint accuracy* is
what its name says only if every entry was measured with all classes seen so far competing
(class-incremental); among one task's own classes it is an average weighted by task size.
"""

from trainables.engine.metrics.accuracy import (
    FROM_TWO_TASKS,
    SUMMARY,
    a_k,
    average_accuracy,
    average_accuracy_curve,
    average_incremental_accuracy,
    backward_transfer,
    forgetting,
    forgetting_speed,
    joint_accuracy,
    joint_accuracy_curve,
    learning_accuracy,
    retained_accuracy,
    summary,
)
from trainables.engine.metrics.transfer import (
    forward_transfer,
    intransigence,
    learning_curve_area,
    task_transfer,
)
from trainables.engine.metrics.zero_shot import (
    ZERO_SHOT,
    area_under_seen_unseen,
    harmonic_mean,
    seen_unseen_curve,
)

__all__ = [
    "FROM_TWO_TASKS",
    "SUMMARY",
    "ZERO_SHOT",
    "a_k",
    "area_under_seen_unseen",
    "average_accuracy",
    "average_accuracy_curve",
    "average_incremental_accuracy",
    "backward_transfer",
    "forgetting",
    "forgetting_speed",
    "forward_transfer",
    "harmonic_mean",
    "intransigence",
    "joint_accuracy",
    "joint_accuracy_curve",
    "learning_accuracy",
    "learning_curve_area",
    "retained_accuracy",
    "seen_unseen_curve",
    "summary",
    "task_transfer",
]
