"""Continual-learning metrics: pure functions of the accuracy matrix.

``A[i, j]`` is the accuracy on task ``j`` after learning task ``i``, both counted from 0, for ``T``
tasks. Entries with ``j > i`` are ignored by everything here and may be NaN. A walk that has come as
far as ``k`` tasks is measured by its leading ``k × k`` block. NumPy only: the driver and the
notebooks read these too.

Which of the field's "accuracies" a matrix holds is settled where it is filled: *joint accuracy* is
what its name says only if every entry was measured with all classes seen so far competing
(class-incremental); among one task's own classes it is an average weighted by task size.
"""

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
    return _matrix(accuracy)[..., -1, :].mean(-1)


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
    matrix = _matrix(accuracy)
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
    matrix = _matrix(accuracy)
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
    matrix = _matrix(accuracy, at_least=2)
    past = np.where(_learned(matrix), matrix, -np.inf)[..., :-1, :-1]
    return (past.max(-2) - matrix[..., -1, :-1]).mean(-1)


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
    matrix = _matrix(accuracy, at_least=2)
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
    return np.diagonal(_matrix(accuracy), axis1=-2, axis2=-1).mean(-1)


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
    matrix = _matrix(accuracy)
    if matrix.shape[-1] == 1:
        return np.full(matrix.shape[:-2], np.nan)[()]
    return matrix[..., -1, :-1].mean(-1)


def task_transfer(accuracy: ArrayLike, before: ArrayLike) -> np.ndarray:
    """What learning a task does to the accuracy on each task, itself and those to come included.

        X[i, j] = A[i, j] − A[i−1, j],   A[−1] the accuracies before any training

    Args:
        accuracy: ``(..., T, T)`` floats in [0, 1], measured on all tasks after each.
        before: ``(..., T)`` floats in [0, 1].

    Returns:
        ``(..., T, T)`` floats in [−1, 1], fractions: on the diagonal what was learned, below it
        what was forgotten (negative), above it what came for nothing (zero-shot transfer). NaN
        where A is.

    Raises:
        ValueError: if the last two axes differ or are empty, or ``before`` has other than T
            numbers.

    Source:
        The LGM code's "task transfer matrix", I. Skorokhodov, 2020; no paper. No difference.

    Example:
        >>> task_transfer([[0.9, 0.5], [0.6, 0.8]], [0.5, 0.4]).round(3).tolist()
        [[0.4, 0.1], [-0.3, 0.3]]
    """
    matrix = _matrix(accuracy)
    rows = np.concatenate([_one_a_task(matrix, before)[..., None, :], matrix], -2)
    return np.diff(rows, axis=-2)


def forward_transfer(accuracy: ArrayLike, before: ArrayLike) -> np.ndarray:
    """Mean accuracy on a task just before it is learned, above that of the untrained network.

        FWT = 1/(T−1) Σ_{j>0} ( A[j−1, j] − b_j )

    Args:
        accuracy: ``(..., T, T)`` floats in [0, 1], measured on all tasks after each.
        before: ``(..., T)`` floats in [0, 1], b: accuracies before any training.

    Returns:
        ``(...)`` floats in [−1, 1], a fraction. Higher is better. Only task-aware accuracies, or
        those of classes that are described, can show any: a class that no one has heard of is never
        the answer among others.

    Raises:
        ValueError: as ``task_transfer``, or if ``T < 2``.

    Source:
        Lopez-Paz & Ranzato, "Gradient Episodic Memory", NeurIPS 2017,
        https://arxiv.org/abs/1706.08840. No difference.

    Example:
        >>> round(float(forward_transfer([[0.9, 0.5], [0.6, 0.8]], [0.5, 0.4])), 3)
        0.1
    """
    matrix = _matrix(accuracy, at_least=2)
    just_before = np.diagonal(matrix, offset=1, axis1=-2, axis2=-1)
    return (just_before - _one_a_task(matrix, before)[..., 1:]).mean(-1)


def intransigence(accuracy: ArrayLike, reference: ArrayLike) -> np.ndarray:
    """How much worse each task is learned than by training on all data so far.

        I_k = a*_k − A[k, k]

    Args:
        accuracy: ``(..., T, T)`` floats in [0, 1].
        reference: ``(..., T)`` floats in [0, 1], a*_k: the accuracy on task k of the same network
            trained on the data of the tasks 0..k together, e.g. the diagonal of ``joint``'s matrix.

    Returns:
        ``(..., T)`` floats in [−1, 1], fractions. Lower is better; negative where what was learned
        before helped.

    Raises:
        ValueError: if the last two axes differ or are empty, or ``reference`` has other than T
            numbers.

    Source:
        Chaudhry et al., "Riemannian Walk", ECCV 2018, https://arxiv.org/abs/1801.10112, which
        reports the last one. No difference.

    Example:
        >>> intransigence([[0.9, 0.1], [0.6, 0.8]], [0.9, 0.95]).round(3).tolist()
        [0.0, 0.15]
    """
    matrix = _matrix(accuracy)
    learned = np.diagonal(matrix, axis1=-2, axis2=-1)
    return _one_a_task(matrix, reference) - learned


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
    matrix = _matrix(accuracy, at_least=2)
    lost = (np.diagonal(matrix, axis1=-2, axis2=-1) - matrix[..., -1, :])[..., :-1]
    return (lost / np.arange(matrix.shape[-1] - 1, 0, -1)).mean(-1)


def learning_curve_area(curve: ArrayLike) -> np.ndarray:
    """LCA: how fast a task is learned, the mean accuracy over its first β batches.

        LCA_β = 1/(β+1) Σ_b Z_b,   Z_b = 1/T Σ_k a_{k,b}

    Args:
        curve: ``(..., T, β+1)`` floats in [0, 1], a_{k,b}: accuracy on task k after b of its own
            batches; b = 0 is before the first.

    Returns:
        ``(...)`` floats in [0, 1], a fraction. Higher is better; at β = 0 it is zero-shot accuracy.

    Raises:
        ValueError: if there are fewer than two axes, or one of the last two is empty.

    Source:
        Chaudhry et al., "Efficient Lifelong Learning with A-GEM", ICLR 2019,
        https://arxiv.org/abs/1812.00420, where β = 10. Their published notebook integrates by
        trapezoids instead; this is the paper's sum.

    Example:
        >>> round(float(learning_curve_area([[0.1, 0.5, 0.9], [0.1, 0.7, 0.7]])), 3)
        0.5
    """
    values = np.asarray(curve, dtype=float)
    if values.ndim < 2 or 0 in values.shape[-2:]:
        raise ValueError(f"expected (..., T, batches + 1), got {values.shape}")
    return values.mean((-2, -1))


def harmonic_mean(seen: ArrayLike, unseen: ArrayLike) -> np.ndarray:
    """Of two accuracies, high only where both are.

        H = 2 S U / (S + U)

    Args:
        seen, unseen: ``(...)`` floats in [0, 1]: accuracy on examples of classes learned, and of
            classes to come, each among all classes, after the same task.

    Returns:
        ``(...)`` floats in [0, 1]; 0 where both are.

    Source:
        Xian et al., "Zero-Shot Learning: The Good, the Bad and the Ugly", CVPR 2017,
        https://arxiv.org/abs/1703.04394. No difference. One LGM notebook paired S after a task
        with U after the task before.

    Example:
        >>> round(float(harmonic_mean(0.6, 0.3)), 3)
        0.4
    """
    s, u = np.asarray(seen, dtype=float), np.asarray(unseen, dtype=float)
    return 2 * s * u / np.where(s + u > 0, s + u, 1.0)


def seen_unseen_curve(
    logits: ArrayLike, y: ArrayLike, seen: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of seen and unseen accuracy that a constant on the unseen classes' logits can give.

    With a constant λ added to the logits of unseen classes an example is answered by its best
    unseen class if λ > its gap (best seen logit − best unseen logit), else by its best seen one.

    Args:
        logits: ``(N, C)``, finite.
        y: ``(N,)`` ints, the true classes, some of them seen and some not.
        seen: ``(C,)`` bool, the classes learned; some but not all.

    Returns:
        Two ``(M,)`` arrays of floats in [0, 1], one entry a range of λ, from −∞ up: the share of
        the seen classes' examples, and of the unseen ones', that are answered correctly. The first
        never rises and the second never falls.

    Raises:
        ValueError: if all classes are seen, or none, or if one kind has no example.

    Source:
        Chao et al., "An Empirical Study and Analysis of Generalized Zero-Shot Learning", ECCV 2016,
        https://arxiv.org/abs/1605.04253. No difference.
    """
    z, y, seen = np.asarray(logits, dtype=float), np.asarray(y), np.asarray(seen, dtype=bool)
    known = seen[y]
    if seen.all() or not seen.any() or known.all() or not known.any():
        raise ValueError(
            f"expected examples of seen and of unseen classes, got {known.sum()} and "
            f"{(~known).sum()} of {seen.sum()} seen and {(~seen).sum()} unseen classes"
        )
    best = {kind: np.where(mask, z, -np.inf) for kind, mask in (("s", seen), ("u", ~seen))}
    right = {kind: values.argmax(-1) == y for kind, values in best.items()}
    gap = best["s"].max(-1) - best["u"].max(-1)
    order = np.argsort(gap, kind="stable")
    ends = (
        np.append(np.flatnonzero(np.diff(gap[order])), len(gap) - 1) + 1
    )  # equal gaps go together
    turned = np.concatenate([[0], ends])  # so many examples are answered by an unseen class
    lost = np.concatenate([[0], np.cumsum(right["s"][order])])[turned]
    won = np.concatenate([[0], np.cumsum(right["u"][order])])[turned]
    return (right["s"].sum() - lost) / known.sum(), won / (~known).sum()


def area_under_seen_unseen(logits: ArrayLike, y: ArrayLike, seen: ArrayLike) -> float:
    """AUSUC: area under the seen-unseen accuracy curve, exact.

    Args:
        logits, y, seen: as ``seen_unseen_curve``.

    Returns:
        A float in [0, 1], by trapezoids between the points of ``seen_unseen_curve``, unseen
        accuracy along, seen accuracy up. Higher is better. 1 only where every example's best seen
        and best unseen answers include the true one.

    Raises:
        ValueError: as ``seen_unseen_curve``.

    Source:
        Chao et al., ECCV 2016, https://arxiv.org/abs/1605.04253. No difference; the LGM code has
        per cent, and plain accuracy where no class is seen or none unseen, which is refused here.
    """
    s, u = seen_unseen_curve(logits, y, seen)
    return float(np.trapezoid(s, u))


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


def _matrix(accuracy: ArrayLike, at_least: int = 1) -> np.ndarray:
    """``accuracy`` as an array ``(..., T, T)`` with ``T >= at_least``, else a ValueError."""
    matrix = np.asarray(accuracy, dtype=float)
    shape = matrix.shape
    if matrix.ndim < 2 or shape[-1] != shape[-2] or shape[-1] < at_least:
        raise ValueError(f"expected (..., T, T) with T >= {at_least}, got {shape}")
    return matrix


def _one_a_task(matrix: np.ndarray, values: ArrayLike) -> np.ndarray:
    """``values`` as an array ``(..., T)`` that fits the matrix, else a ValueError."""
    array = np.asarray(values, dtype=float)
    if array.ndim == 0 or array.shape[-1] != matrix.shape[-1]:
        raise ValueError(f"expected {matrix.shape[-1]} numbers, one a task, got {values}")
    return np.broadcast_to(array, (*matrix.shape[:-2], matrix.shape[-1]))


def _learned(matrix: np.ndarray) -> np.ndarray:
    """``(T, T)`` bool: task ``j`` was learned by the time of row ``i``, j <= i."""
    return np.tri(matrix.shape[-1], dtype=bool)
