"""Methods over several blocks: who ranks where, and which differences are more than chance.

A block is what all methods were measured on, and what makes blocks independent decides what the
tests speak of: over benchmarks they speak of benchmarks like these; over seeds of one benchmark of
that benchmark alone.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats


class Ranks(NamedTuple):
    """What ``compare`` finds. Methods are in the order of their average ranks, the best first."""

    average: pd.Series  # method -> its mean rank, 1 is best
    blocks: int
    chi2: float  # Friedman's statistic; p_chi2 is its p-value on k − 1 degrees of freedom
    p_chi2: float
    f: float  # Iman and Davenport's, less conservative, on k − 1 and (k − 1)(N − 1)
    p_f: float
    critical_difference: float  # of Nemenyi: ranks further apart differ
    cliques: list[tuple[str, ...]]  # largest groups within the critical difference
    pairs: pd.DataFrame  # better, worse, difference (of ranks), p (Wilcoxon's), p_holm
    wilcoxon_cliques: list[tuple[str, ...]]  # largest groups without a significant pair
    smallest_p: float  # of one Wilcoxon test over this many blocks: 2^(1 − N)


def compare(scores: pd.DataFrame, alpha: float = 0.05) -> Ranks:
    """Rank methods on every block and test whether they differ.

        χ²_F = 12 N / (k (k + 1)) · (Σ_j R_j² − k (k + 1)² / 4)
        F_F = (N − 1) χ²_F / (N (k − 1) − χ²_F)
        CD = q_α √(k (k + 1) / (6 N)),   q_α of the studentised range over √2

    Args:
        scores: one row for each of N blocks (benchmarks, or seeds), one column for each of k
            methods; larger is better. A block in which a method has no finite score is left out.
        alpha: level of the tests, in (0, 1).

    Returns:
        Average ranks (ties share their mean rank), Friedman's test, Nemenyi's critical difference,
        and Wilcoxon's signed-rank test of every pair, with p-values corrected by Holm's procedure.
        A clique is a run of neighbours in the order of ranks, two at least, which a
        critical-difference diagram joins by a bar. Between two methods that stand apart in that
        order ``pairs`` has the last word.

    Raises:
        ValueError: with fewer than two methods or two complete blocks, or alpha out of range.

    Source:
        Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 2006, whose
        χ²_F is not corrected for ties (SciPy's is); Holm, Scandinavian Journal of Statistics 1979;
        Benavoli et al., JMLR 2016, for Wilcoxon's test in Nemenyi's place, since the latter's
        verdict on two methods depends on the others.

    Example:
        >>> table = pd.DataFrame({"er": [0.9, 0.8, 0.9], "ewc": [0.5, 0.6, 0.4]})
        >>> compare(table).average.to_dict()
        {'er': 1.0, 'ewc': 2.0}
    """
    table = scores.replace([np.inf, -np.inf], np.nan).dropna()
    n, k = table.shape
    if k < 2 or n < 2 or not 0 < alpha < 1:
        raise ValueError(
            f"expected at least 2 methods, 2 blocks in which all have a score, and 0 < alpha < 1;"
            f" got {k} methods, {n} of {len(scores)} blocks, alpha = {alpha}"
        )
    ranks = table.rank(axis=1, ascending=False).mean().sort_values(kind="stable")
    chi2 = 12 * n / (k * (k + 1)) * float((ranks**2).sum() - k * (k + 1) ** 2 / 4)
    room = n * (k - 1) - chi2
    f = (n - 1) * chi2 / room if room > 1e-9 else np.inf  # the same order in every block
    difference = critical_difference(k, n, alpha)
    pairs = _pairs(table, ranks)
    place = {str(name): float(rank) for name, rank in ranks.items()}
    names = list(place)
    differ = pairs[pairs.p_holm < alpha]
    apart = {frozenset(pair) for pair in zip(differ.better, differ.worse, strict=True)}
    return Ranks(
        average=ranks.set_axis(names),
        blocks=n,
        chi2=chi2,
        p_chi2=float(stats.chi2.sf(chi2, k - 1)),
        f=f,
        p_f=float(stats.f.sf(f, k - 1, (k - 1) * (n - 1))),
        critical_difference=difference,
        cliques=cliques(names, lambda a, b: abs(place[a] - place[b]) < difference),
        pairs=pairs,
        wilcoxon_cliques=cliques(names, lambda a, b: frozenset((a, b)) not in apart),
        smallest_p=2.0 ** (1 - n),
    )


def critical_difference(methods: int, blocks: int, alpha: float = 0.05) -> float:
    """Nemenyi's: average ranks that are at least so far apart differ.

    Args:
        methods: k >= 2.
        blocks: N >= 1.
        alpha: in (0, 1).

    Example:
        >>> round(critical_difference(4, 14), 2)
        1.25
    """
    q = stats.studentized_range.ppf(1 - alpha, methods, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(methods * (methods + 1) / (6 * blocks)))


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """p-values of m tests, corrected so that one false rejection in all is as rare as asked.

        p̃_(i) = max_{j≤i} min(1, (m − j + 1) p_(j))

    Example:
        >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
        [0.03, 0.06, 0.06]
    """
    given = np.asarray(p, dtype=float)
    order = np.argsort(given, kind="stable")
    stepped = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1))
    corrected = np.empty(len(given))
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def cliques(ordered: Sequence[str], alike: Callable[[str, str], bool]) -> list[tuple[str, ...]]:
    """The largest runs of neighbours, two at least, in which all pairs are alike."""
    found: list[tuple[str, ...]] = []
    reached = 0  # where the last run ended
    for start in range(len(ordered)):
        end = start + 1
        while end < len(ordered) and all(alike(a, ordered[end]) for a in ordered[start:end]):
            end += 1
        if end - start > 1 and end > reached:
            found.append(tuple(ordered[start:end]))
            reached = end
    return found


def _pairs(table: pd.DataFrame, ranks: pd.Series) -> pd.DataFrame:
    place = {str(name): float(rank) for name, rank in ranks.items()}
    rows = []
    for better, worse in combinations(ranks.index, 2):
        differences = (table[better] - table[worse]).to_numpy()
        # Without any difference there is nothing to rank.
        p = float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0  # pyright: ignore
        rows.append((str(better), str(worse), place[str(worse)] - place[str(better)], p))
    pairs = pd.DataFrame(rows, columns=["better", "worse", "difference", "p"])
    return pairs.assign(p_holm=holm(pairs.p.to_numpy()))
