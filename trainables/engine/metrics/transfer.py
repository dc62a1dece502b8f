"""Metrics of the accuracy matrix beside something else: what was known before, what could be.

Letters as in ``engine.metrics``.
"""

import numpy as np
from numpy.typing import ArrayLike

from trainables.engine.metrics.accuracy import square


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
    matrix = square(accuracy)
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
    matrix = square(accuracy, at_least=2)
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
    matrix = square(accuracy)
    learned = np.diagonal(matrix, axis1=-2, axis2=-1)
    return _one_a_task(matrix, reference) - learned


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


def _one_a_task(matrix: np.ndarray, values: ArrayLike) -> np.ndarray:
    """``values`` as an array ``(..., T)`` that fits the matrix, else a ValueError."""
    array = np.asarray(values, dtype=float)
    if array.ndim == 0 or array.shape[-1] != matrix.shape[-1]:
        raise ValueError(f"expected {matrix.shape[-1]} numbers, one a task, got {values}")
    return np.broadcast_to(array, (*matrix.shape[:-2], matrix.shape[-1]))
