"""Metrics of the accuracy matrix alone. Entries with ``j > i`` are ignored and may be NaN."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def average_accuracy(accuracy: ArrayLike) -> np.ndarray:
    """Mean accuracy over tasks after the last one; every task counts the same.

        ACC = 1/T Σ_j A[T−1, j]

    Args:
        accuracy: ``(..., T, T)`` floats in [0, 1]. Leading axes (lanes, seeds) are kept; NaN in
            the last row propagates.

    Returns:
        ``(...)`` floats in [0, 1], a fraction and not in per cent. Higher is better.

    Raises:
        ValueError: if the last two axes differ or are empty.

    Source:
        Lopez-Paz & Ranzato, "Gradient Episodic Memory", NeurIPS 2017,
        https://arxiv.org/abs/1706.08840. No difference.

    Example:
        >>> round(float(average_accuracy([[0.9, 0.1], [0.6, 0.8]])), 3)
        0.7
    """
    return square(accuracy)[..., -1, :].mean(-1)


def average_accuracy_curve(accuracy: ArrayLike) -> np.ndarray:
    """Average accuracy over the tasks seen, after each task.

        ACC_i = 1/(i+1) Σ_{j≤i} A[i, j]

    Args:
        accuracy: ``(..., T, T)`` floats in [0, 1]. Leading axes are kept; NaN at or below the
            diagonal shows in the entry of its row.

    Returns:
        ``(..., T)`` floats in [0, 1], fractions; entry ``i`` belongs to the moment after task
        ``i``, the last one is ``average_accuracy``. Higher is better.

    Raises:
        ValueError: if the last two axes differ or are empty.

    Source:
        Chaudhry et al., "Riemannian Walk", ECCV 2018, https://arxiv.org/abs/1801.10112, where it
        is called A_k. No difference.

    Example:
        >>> average_accuracy_curve([[0.9, 0.1], [0.6, 0.8]]).round(3).tolist()
        [0.9, 0.7]
    """
    matrix = square(accuracy)
    return joint_accuracy_curve(matrix, np.ones(matrix.shape[-1]))


def joint_accuracy(accuracy: ArrayLike, examples: ArrayLike) -> np.ndarray:
    """Share of the examples of all tasks that is classified correctly after the last task.

        J = Σ_j n_j A[T−1, j] / Σ_j n_j

    The final joint accuracy (FJA) of the LGM reports where ``accuracy`` was measured
    class-incrementally and ``T`` is the whole stream.

    Args:
        accuracy: ``(..., T, T)`` floats in [0, 1]. Leading axes are kept; NaN in the last row
            propagates.
        examples: ``(T,)`` or ``(..., T)`` numbers > 0, n_j, the evaluated examples of task ``j``.

    Returns:
        ``(...)`` floats in [0, 1], a fraction. Higher is better. Equal to ``average_accuracy``
        where all tasks have equally many examples.

    Raises:
        ValueError: if the last two axes differ or are empty, if ``examples`` does not have one
            number a task, or if one of them is not positive.

    Source:
        Van de Ven & Tolias, "Three scenarios for continual learning", 2019,
        https://arxiv.org/abs/1904.07734, whose class-incremental accuracy it is; the name is that
        of the LGM reports. No difference.

    Example:
        >>> round(float(joint_accuracy([[0.9, 0.1], [0.6, 0.8]], [100, 300])), 3)
        0.75
    """
    return joint_accuracy_curve(accuracy, examples)[..., -1]


def joint_accuracy_curve(accuracy: ArrayLike, examples: ArrayLike) -> np.ndarray:
    """Joint accuracy over the tasks seen, after each task.

        J_i = Σ_{j≤i} n_j A[i, j] / Σ_{j≤i} n_j

    Args:
        accuracy: ``(..., T, T)`` floats in [0, 1]. Leading axes are kept; NaN at or below the
            diagonal shows in the entry of its row.
        examples: ``(T,)`` or ``(..., T)`` numbers > 0, n_j.

    Returns:
        ``(..., T)`` floats in [0, 1], fractions; the last entry is ``joint_accuracy``. Higher is
        better.

    Raises:
        ValueError: as ``joint_accuracy``.

    Source:
        Rebuffi et al., "iCaRL", CVPR 2017, https://arxiv.org/abs/1611.07725, whose curves these
        are. The LGM code's joint accuracy before the end also counts classes not yet seen; here
        only the seen ones count.

    Example:
        >>> joint_accuracy_curve([[0.9, 0.1], [0.6, 0.8]], [100, 300]).round(3).tolist()
        [0.9, 0.75]
    """
    matrix = square(accuracy)
    n = np.asarray(examples, dtype=float)
    if n.ndim == 0 or n.shape[-1] != matrix.shape[-1] or not (n > 0).all():
        raise ValueError(
            f"expected {matrix.shape[-1]} numbers of examples > 0, one a task, got {examples}"
        )
    hits = np.where(_learned(matrix), matrix, 0.0) * n[..., None, :]
    return hits.sum(-1) / n.cumsum(-1)


def a_k(accuracy: ArrayLike, examples: ArrayLike, classes: Sequence[int], k: int) -> np.ndarray:
    """Joint accuracy over the k classes seen, at the moment when k classes have been seen.

        A_k = J_i   for the task i with  Σ_{j≤i} c_j = k

    Args:
        accuracy: ``(..., T, T)`` floats in [0, 1], measured class-incrementally.
        examples: ``(T,)`` or ``(..., T)`` numbers > 0, n_j.
        classes: ``T`` ints > 0, c_j, the classes that task ``j`` brings.
        k: number of classes, reached exactly at the end of some task.

    Returns:
        ``(...)`` floats in [0, 1], a fraction. Higher is better. A_5 and A_10 of a stream of ten
        classes come from one run, read at two times.

    Raises:
        ValueError: as ``joint_accuracy``, if ``classes`` does not have one number a task, or if no
            task ends with exactly ``k`` classes seen.

    Source:
        Ostapenko et al., "Learning to Remember" (DGM), CVPR 2019,
        https://arxiv.org/abs/1904.03137. DGM's code averages batch averages, which weighs a short
        last batch too much; here every example counts once.

    Example:
        >>> round(float(a_k([[0.9, 0.1], [0.6, 0.8]], [100, 300], classes=[2, 2], k=4)), 3)
        0.75
    """
    curve = joint_accuracy_curve(accuracy, examples)
    seen = np.cumsum(classes).tolist()
    if len(seen) != curve.shape[-1]:
        raise ValueError(f"expected {curve.shape[-1]} numbers of classes, got {list(classes)}")
    if k not in seen:
        raise ValueError(f"expected k among the classes seen at the ends of tasks, {seen}, got {k}")
    return curve[..., seen.index(k)]


def average_incremental_accuracy(accuracy: ArrayLike, examples: ArrayLike) -> np.ndarray:
    """Mean over time of the joint accuracy over what was seen, the first task included.

        AIA = 1/T Σ_i J_i

    Args:
        accuracy: ``(..., T, T)`` floats in [0, 1], measured class-incrementally.
        examples: ``(T,)`` or ``(..., T)`` numbers > 0, n_j.

    Returns:
        ``(...)`` floats in [0, 1], a fraction. Higher is better.

    Raises:
        ValueError: as ``joint_accuracy``.

    Source:
        Rebuffi et al., "iCaRL", CVPR 2017, https://arxiv.org/abs/1611.07725. Some later papers
        leave the first task out, which cannot have been forgotten yet; here it counts.

    Example:
        >>> average_incremental_accuracy([[0.9, 0.1], [0.6, 0.8]], [100, 300]).round(3).item()
        0.825
    """
    return joint_accuracy_curve(accuracy, examples).mean(-1)


def forgetting(accuracy: ArrayLike) -> np.ndarray:
    """Mean drop of each past task from its best accuracy to its last one.

        F = 1/(T−1) Σ_{j<T−1} ( max_{j≤i<T−1} A[i, j] − A[T−1, j] )

    Args:
        accuracy: ``(..., T, T)`` floats in [0, 1]. Leading axes are kept; NaN at or below the
            diagonal propagates, except from the newest task.

    Returns:
        ``(...)`` floats in [−1, 1], as a fraction and not in per cent. Lower is better;
        negative where later tasks improved on earlier ones.

    Raises:
        ValueError: if the last two axes differ, or if ``T < 2``: nothing can be forgotten yet.

    Source:
        Chaudhry et al., "Riemannian Walk", ECCV 2018, https://arxiv.org/abs/1801.10112.
        The maximum starts at ``i = j`` here, so zero-shot accuracy before a task is learned does
        not count. Avalanche's metric of this name is ``A[j, j] − A[T−1, j]``, minus the backward
        transfer; Mammoth's maximum includes the last row, so that it is never negative.

    Example:
        >>> round(float(forgetting([[0.9, 0.1], [0.6, 0.8]])), 3)
        0.3
    """
    matrix = square(accuracy, at_least=2)
    past = np.where(_learned(matrix), matrix, -np.inf)[..., :-1, :-1]
    return (past.max(-2) - matrix[..., -1, :-1]).mean(-1)


def forgetting_speed(accuracy: ArrayLike) -> np.ndarray:
    """Mean loss of accuracy on a past task for each task learned after it.

        V = 1/(T−1) Σ_{j<T−1} ( A[j, j] − A[T−1, j] ) / (T−1−j)

    Args:
        accuracy: ``(..., T, T)`` floats in [0, 1]. Leading axes are kept; NaN in the diagonal or
            the last row propagates, except from the newest task.

    Returns:
        ``(...)`` floats in [−1, 1], a fraction a task. Lower is better.

    Raises:
        ValueError: if the last two axes differ, or if ``T < 2``.

    Source:
        Ours: the LGM reports name a forgetting speed without a formula; theirs is by training
        step, this one by task, from what every record has.

    Example:
        >>> a = [[0.9, 0, 0], [0.7, 0.8, 0], [0.5, 0.7, 0.9]]
        >>> round(float(forgetting_speed(a)), 3)
        0.15
    """
    matrix = square(accuracy, at_least=2)
    lost = (np.diagonal(matrix, axis1=-2, axis2=-1) - matrix[..., -1, :])[..., :-1]
    return (lost / np.arange(matrix.shape[-1] - 1, 0, -1)).mean(-1)


def backward_transfer(accuracy: ArrayLike) -> np.ndarray:
    """Mean change of each past task since the moment it was learned.

        BWT = 1/(T−1) Σ_{j<T−1} ( A[T−1, j] − A[j, j] )

    Args:
        accuracy: ``(..., T, T)`` floats in [0, 1]. Leading axes are kept; NaN in the diagonal or
            the last row propagates, except from the newest task.

    Returns:
        ``(...)`` floats in [−1, 1], a fraction. Higher is better; negative where tasks were
        forgotten. ``forgetting >= −BWT``, equal where no past task was ever better than when it
        was learned.

    Raises:
        ValueError: if the last two axes differ, or if ``T < 2``: no task is past yet.

    Source:
        Lopez-Paz & Ranzato, "Gradient Episodic Memory", NeurIPS 2017,
        https://arxiv.org/abs/1706.08840. No difference.

    Example:
        >>> round(float(backward_transfer([[0.9, 0.1], [0.6, 0.8]])), 3)
        -0.3
    """
    matrix = square(accuracy, at_least=2)
    when_learned = np.diagonal(matrix, axis1=-2, axis2=-1)
    return (matrix[..., -1, :] - when_learned)[..., :-1].mean(-1)


def learning_accuracy(accuracy: ArrayLike) -> np.ndarray:
    """Mean accuracy on each task just after it was learned: plasticity.

        LA = 1/T Σ_j A[j, j]

    Args:
        accuracy: ``(..., T, T)`` floats in [0, 1]. Leading axes are kept; NaN in the diagonal
            propagates.

    Returns:
        ``(...)`` floats in [0, 1], a fraction. Higher is better.

    Raises:
        ValueError: if the last two axes differ or are empty.

    Source:
        Riemer et al., "Learning to Learn without Forgetting" (MER), ICLR 2019,
        https://arxiv.org/abs/1810.11910. No difference.

    Example:
        >>> round(float(learning_accuracy([[0.9, 0.1], [0.6, 0.8]])), 3)
        0.85
    """
    return np.diagonal(square(accuracy), axis1=-2, axis2=-1).mean(-1)


def retained_accuracy(accuracy: ArrayLike) -> np.ndarray:
    """Mean accuracy on the earlier tasks after the last one; the newest task is left out.

        R = 1/(T−1) Σ_{j<T−1} A[T−1, j]

    A signal for early stopping. How well the newest task is learned says little about the end of
    the stream (it is learned best by what forgets most); what is kept of the earlier ones does.

    Args:
        accuracy: ``(..., T, T)`` floats in [0, 1]. Leading axes are kept; NaN in the last row
            propagates, except from the newest task.

    Returns:
        ``(...)`` floats in [0, 1], a fraction. Higher is better. NaN for ``T = 1``: there is no
        earlier task, so a trial has no such score yet and cannot be judged by it. It does not
        raise, because it is asked for after every task, the first included.

    Raises:
        ValueError: if the last two axes differ or are empty.

    Source:
        Ours. Measured on 110 random LGM-AC-GAN configurations on split digits after two tasks, its
        rank correlation with the final joint accuracy was 0.71; that of the newest task's
        accuracy was −0.23.

    Example:
        >>> round(float(retained_accuracy([[0.9, 0.1], [0.6, 0.8]])), 3)
        0.6
    """
    matrix = square(accuracy)
    if matrix.shape[-1] == 1:
        return np.full(matrix.shape[:-2], np.nan)[()]
    return matrix[..., -1, :-1].mean(-1)


# What is reported of a trial after every task, by name; each of (accuracy, examples).
SUMMARY = {
    "joint_accuracy": joint_accuracy,
    "average_accuracy": lambda accuracy, examples: average_accuracy(accuracy),
    "average_incremental_accuracy": average_incremental_accuracy,
    "learning_accuracy": lambda accuracy, examples: learning_accuracy(accuracy),
    "retained_accuracy": lambda accuracy, examples: retained_accuracy(accuracy),
    "forgetting": lambda accuracy, examples: forgetting(accuracy),
    "backward_transfer": lambda accuracy, examples: backward_transfer(accuracy),
}
FROM_TWO_TASKS = {"retained_accuracy", "forgetting", "backward_transfer"}


def summary(accuracy: ArrayLike, examples: ArrayLike) -> dict[str, float]:
    """The metrics of ``SUMMARY`` that are defined after ``T`` tasks.

    Args:
        accuracy: ``(T, T)`` floats in [0, 1], the leading block of an accuracy matrix.
        examples: ``(T,)`` how many examples of each task were evaluated.

    Returns:
        Name -> value; without those of ``FROM_TWO_TASKS`` if ``T = 1``.

    Raises:
        ValueError: if the last two axes differ or are empty.

    Example:
        >>> sorted(summary([[0.5]], [10]))[:2]
        ['average_accuracy', 'average_incremental_accuracy']
    """
    names = SUMMARY.keys() - (FROM_TWO_TASKS if np.shape(accuracy)[-1] == 1 else ())
    return {name: float(SUMMARY[name](accuracy, examples)) for name in SUMMARY if name in names}


def square(accuracy: ArrayLike, at_least: int = 1) -> np.ndarray:
    """``accuracy`` as an array ``(..., T, T)`` with ``T >= at_least``, else a ValueError."""
    matrix = np.asarray(accuracy, dtype=float)
    shape = matrix.shape
    if matrix.ndim < 2 or shape[-1] != shape[-2] or shape[-1] < at_least:
        raise ValueError(f"expected (..., T, T) with T >= {at_least}, got {shape}")
    return matrix


def _learned(matrix: np.ndarray) -> np.ndarray:
    """``(T, T)`` bool: task ``j`` was learned by the time of row ``i``, j <= i."""
    return np.tri(matrix.shape[-1], dtype=bool)
