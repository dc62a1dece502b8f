"""Metrics of a classifier that is asked for classes it has not learned yet."""

import numpy as np
from numpy.typing import ArrayLike

# Seen accuracy, unseen accuracy, and what is made of them: names as in the record.
ZERO_SHOT = ("seen_accuracy", "unseen_accuracy", "harmonic_mean", "area_under_seen_unseen")


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
