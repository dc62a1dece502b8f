"""Which hyperparameters mattered, how sure that is, and at which values trials did well.

Two answers, since they are to two questions. PED-ANOVA: what do the best trials have in common that
the others do not? fANOVA: how much of the score's variance over the whole space does a parameter
explain alone? Both are computed from completed trials; a search that learns or stops trials early
has few bad ones among these, so what ruins a trial at once shows less than it should.

Both agree with ``optuna.importance`` to rounding (tested against it), and are written anew because
a bootstrap needs them a hundred times over: of 1,000 trials with 15 parameters Optuna's fANOVA
takes 63 s, this one half a second.
"""

from collections.abc import Iterable, Sequence
from itertools import compress
from typing import NamedTuple

import numpy as np
import pandas as pd
from optuna.distributions import CategoricalDistribution, IntDistribution
from scipy import stats
from scipy.special import ndtr
from sklearn.ensemble import RandomForestRegressor

from analysis.parameters import (
    Distribution,
    Space,
    bounds,
    codes,
    configurations,
    scored,
    searched,
)
from analysis.reading import Study

PED_ANOVA, FANOVA = "ped_anova", "fanova"
COLUMNS = ["name", "method", "mean", "low", "high", "noise", "trials", "of"]
FEWEST = 10  # trials that have a parameter, for a statement about it
TOP = 0.1  # share of trials that PED-ANOVA asks for the mark of, at least FEWEST_ON_TOP of them
FEWEST_ON_TOP = 5
GRID = 50  # places on which PED-ANOVA compares densities
MOST = 300  # trials at most that a forest is grown on
TREES, FEW_TREES = 64, 8  # of the forest that counts, of those that say how sure it is
RESAMPLES, REGROWN = 50, 10  # of PED-ANOVA; of the forest
SHUFFLES, COPIES = 10, 2  # of the forest; of each kind of parameter in one of them
PAIRS_OF = 6  # parameters, those of the largest main effects, whose interactions are looked at
BINS = 8

Grid = tuple[np.ndarray, int, bool]  # places of trials (−1: absent), their number, whether choices


class Data(NamedTuple):
    """Completed trials as numbers."""

    x: np.ndarray  # (n, d), on the scale on which a parameter is searched; NaN where it is absent
    score: np.ndarray  # (n,)
    ranges: dict[str, Distribution]  # of the d parameters, in order


class Slice(NamedTuple):
    """One parameter against the score."""

    points: pd.DataFrame  # trial_id, value, score
    bins: pd.DataFrame  # low, high (of values; a choice: both are it), median, q25, q75, trials


def data(study: Study, space: Space | None = None) -> Data:
    """What is known: the completed trials of the search, each parameter that was searched.

    Args:
        study: of ``analysis.load``.
        space: name -> distribution, as for ``parameters.searched``.
    """
    trials = scored(study.trials)
    ranges = {n: r for n, r in searched(study.trials, space).items() if not r.single()}
    values = configurations(trials).reindex(columns=list(ranges))
    columns = [codes(values[name], one) for name, one in ranges.items()]
    x = np.column_stack(columns) if columns else np.empty((len(trials), 0))
    return Data(x, trials.score.to_numpy(dtype=float), ranges)


def importances(study: Study, space: Space | None = None, seed: int = 0) -> pd.DataFrame:
    """How much each parameter mattered, by PED-ANOVA and by fANOVA, with how sure that is.

    Args:
        study: of ``analysis.load``.
        space: name -> Optuna's distribution, of every parameter searched; from the values that
            trials had if None (``parameters.searched``).
        seed: of resampling, and of the forests.

    Returns:
        One row for each parameter and method, in the order of ``mean``, PED-ANOVA first:

        - ``mean``: of PED-ANOVA the parameter's share of all importance, which sums to 1, computed
          for the best tenth of the trials, at least five; a parameter that exists under a condition
          also counts for whether the best trials have it. Of fANOVA the share of the variance of
          the score over the space that it explains alone, which sums to 1 with the interactions;
          a conditional parameter is judged within the trials that have it.
        - ``low``, ``high``: 95 % interval, ``mean`` ± t times the spread over bootstrap resamples
          of the trials (of fANOVA with a small forest of another seed each).
        - ``noise``: what some 19 of 20 parameters of the same kind (numbers, or choices of as many
          values) stay below where their values are dealt out anew to the trials, while all others
          keep theirs. A ``mean`` that does not exceed it shows nothing.
        - ``trials``: that have the parameter, ``of`` so many. fANOVA draws 300 if there are more.

        Empty with fewer than ``FEWEST`` completed trials or a constant score; a conditional
        parameter that fewer trials have is left out.

    Source:
        Watanabe et al., "PED-ANOVA", IJCAI 2023, https://arxiv.org/abs/2304.10255, and its
        conditional form, https://arxiv.org/abs/2601.20800; Hutter et al., "An Efficient Approach
        for Assessing Hyperparameter Importance", ICML 2014; shuffled parameters beside the true
        ones: Kursa and Rudnicki, "Feature Selection with the Boruta Package", JSS 2010. Differs
        from Optuna's fANOVA: the variance is over the scale on which a parameter is searched, so
        that of a learning rate's decades each counts the same, and a choice is one axis, not one
        axis for each value.

    Example:
        >>> found = importances(study)
        >>> found.query("method == 'fanova'").name.iloc[0]
        'classifier_rehearsal'
    """
    known = data(study, space)
    return of_data(known, seed)


def of_data(known: Data, seed: int = 0) -> pd.DataFrame:
    """As ``importances``, from numbers."""
    if len(known.score) < FEWEST or np.ptp(known.score) == 0 or not known.ranges:
        return pd.DataFrame(columns=COLUMNS)
    rng = np.random.default_rng(seed)
    rows = [*_ped_rows(known, rng), *_fanova_rows(known, rng)]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    first = (frame.method != PED_ANOVA).rename("later")
    order = pd.concat([first, -frame["mean"]], axis=1).sort_values(["later", "mean"]).index
    return frame.loc[order].reset_index(drop=True)


# ---- PED-ANOVA -----------------------------------------------------------------------------------


def ped_anova(known: Data, top: float = TOP) -> np.ndarray:
    """``(d,)`` importances of PED-ANOVA, not normalised.

        v = (γ'/γ)² · α²/β · Σ_g p(g) (p_top(g)/p(g) − 1)²

    with α and β the shares of the top trials and of all trials that have the parameter, p and p_top
    Parzen estimates of its density on a grid (Scott's rule), and γ'/γ the share of top trials.

    Args:
        known: of ``data``.
        top: γ', the share of trials that are called top, in (0, 1); ties with the last are top too.
    """
    return _ped(_on_grid(known), known.score, top)


def _on_grid(known: Data) -> list[Grid]:
    found = []
    for values, one in zip(known.x.T, known.ranges.values(), strict=True):
        if isinstance(one, CategoricalDistribution):
            places = np.where(np.isnan(values), -1, values).astype(int)
            found.append((places, len(one.choices), True))
            continue
        size = GRID
        if isinstance(one, IntDistribution) and one.log:
            size = min(int(np.ceil(np.log2(one.high - one.low + 1))) + 1, size)
        elif one.step is not None:
            size = min(round((one.high - one.low) / one.step) + 1, size)
        low, high = (np.log([one.low, one.high])) if one.log else (one.low, one.high)
        places = np.ceil((values - low) / ((high - low) / (size - 1)) - 0.5)  # ties go down
        places = np.where(np.isnan(values), -1, np.clip(places, 0, size - 1)).astype(int)
        found.append((places, size, False))
    return found


def _ped(grids: Sequence[Grid], score: np.ndarray, top: float) -> np.ndarray:
    n = len(score)
    cutoff = np.partition(score, n - int(np.ceil(top * n)))[n - int(np.ceil(top * n))]
    best = score >= cutoff
    found = []
    for places, size, choices in grids:
        here = places >= 0
        all_counts = np.bincount(places[here], minlength=size)
        top_counts = np.bincount(places[here & best], minlength=size)
        total, above = all_counts.sum(), top_counts.sum()
        if total < 2 or not above:
            found.append(0.0)
            continue
        p, p_top = (_density(c, choices) + 1e-12 for c in (all_counts, top_counts))
        divergence = float(p @ (p_top / p - 1) ** 2)
        found.append((above / best.sum()) ** 2 / (total / n) * divergence)
    return np.array(found) * best.mean() ** 2


def _density(counts: np.ndarray, choices: bool) -> np.ndarray:
    """``(g,)`` Parzen estimate from counts on a grid, with one count's weight for the prior."""
    seen = np.flatnonzero(counts)
    weights = np.append(counts[seen], 1.0) / (counts.sum() + 1)
    size = len(counts)
    if choices:
        kernels = np.full((len(weights), size), 1 / len(weights))
        kernels[np.arange(len(seen)), seen] += 1
        return weights @ (kernels / kernels.sum(axis=1, keepdims=True))
    total, cumulated = counts.sum(), np.cumsum(counts[seen])
    mean = seen @ counts[seen] / total
    spread = np.sqrt((seen - mean) ** 2 @ counts[seen] / max(1, total - 1))
    first = np.searchsorted(cumulated, total // 4, side="left")
    third = np.searchsorted(cumulated, total * 3 // 4, side="right")
    quartiles = seen[min(len(seen) - 1, third)] - seen[first]
    sigma = max(1.059 * min(quartiles / 1.34, spread) * total**-0.2, 0.5 / 1.64)
    mu = np.append(seen, (size - 1) / 2)[:, None]
    sigmas = np.append(np.full(len(seen), sigma), size)[:, None]
    edges = ndtr((np.arange(size + 1) - 0.5 - mu) / sigmas)
    return weights @ (np.diff(edges) / (edges[:, -1:] - edges[:, :1]))


def _ped_rows(known: Data, rng: np.random.Generator) -> list[tuple]:
    n = len(known.score)
    top, grids = max(TOP, FEWEST_ON_TOP / n), _on_grid(known)
    raw = _ped(grids, known.score, top)
    resampled, shuffled = [], []
    for k in range(RESAMPLES):
        chosen = rng.integers(n, size=n)
        again = _ped([(p[chosen], s, c) for p, s, c in grids], known.score[chosen], top)
        resampled.append(again / (again.sum() or 1.0))
        if k < RESAMPLES // 2:
            shuffled.append(_ped(grids, rng.permutation(known.score), top))
    share = raw / (raw.sum() or 1.0)
    kinds, dealt = _kinds(known.ranges.values()), np.array(shuffled) / (raw.sum() or 1.0)
    noise = [min(1.0, np.quantile(dealt[:, kinds == kind], 0.95)) for kind in kinds]
    low, high = _interval(share, np.array(resampled))
    present = np.isfinite(known.x).sum(axis=0)
    return [
        (name, PED_ANOVA, share[i], low[i], high[i], noise[i], present[i], n)
        for i, name in enumerate(known.ranges)
        if present[i] >= FEWEST
    ]


def _interval(found: np.ndarray, resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % bounds from the spread over resamples, around what was found; shares, so in [0, 1]."""
    half = stats.t.ppf(0.975, len(resampled) - 1) * resampled.std(axis=0, ddof=1)
    return np.clip(found - half, 0.0, 1.0), np.clip(found + half, 0.0, 1.0)


def _kinds(ranges: Iterable[Distribution]) -> np.ndarray:
    """``(d,)`` 0 for numbers, else how many choices there are."""
    return np.array([len(getattr(one, "choices", ())) for one in ranges])


# ---- fANOVA --------------------------------------------------------------------------------------


class Boxes(NamedTuple):
    """A tree of a forest: its L leaves as boxes in the space, with what it predicts in each."""

    low: np.ndarray  # (L, d)
    high: np.ndarray
    value: np.ndarray  # (L,)


def fanova(
    x: np.ndarray,
    y: np.ndarray,
    ends: np.ndarray,
    trees: int = TREES,
    seed: int = 0,
    columns: Sequence[int] | None = None,
) -> np.ndarray:
    """``(c,)`` shares of the variance of y over a box that each column explains alone.

        V_j / V,   V_j = Var_{x_j} E[ŷ | x_j],   V = Var ŷ

    for the prediction ŷ of a regression tree and x uniform over the box, exactly, averaged over the
    trees of a random forest. Zero where no tree splits.

    Args:
        x: ``(n, d)`` finite floats.
        y: ``(n,)``.
        ends: ``(d, 2)``, the box.
        trees, seed: of the forest.
        columns: c of them, or None for all.
    """
    shares, asked = [], range(len(ends)) if columns is None else columns
    for tree in grow(x, y, ends, trees, seed):
        weights, variance = _weights(tree, ends)
        if variance > 0:
            marginals = (_marginal(tree, weights, ends, j) for j in asked)
            shares.append([_variance(*one) / variance for one in marginals])
    return np.mean(shares, axis=0) if shares else np.zeros(len(asked))


def grow(x: np.ndarray, y: np.ndarray, ends: np.ndarray, trees: int, seed: int) -> list[Boxes]:
    """The trees of a random forest, as boxes. Arguments as for ``fanova``."""
    fitted = RandomForestRegressor(trees, max_depth=64, random_state=seed).fit(x, y)
    return [_boxes(estimator.tree_, ends) for estimator in fitted.estimators_]


def _boxes(tree, ends: np.ndarray) -> Boxes:
    left, right, feature = tree.children_left, tree.children_right, tree.feature
    low = np.tile(ends[:, 0], (tree.node_count, 1))
    high = np.tile(ends[:, 1], (tree.node_count, 1))
    level = np.zeros(1, dtype=int)
    while len(level := level[left[level] >= 0]):
        at, cut = feature[level], tree.threshold[level]
        for children in (left[level], right[level]):
            low[children], high[children] = low[level], high[level]
        high[left[level], at], low[right[level], at] = cut, cut
        level = np.concatenate([left[level], right[level]])
    leaves = left < 0
    return Boxes(low[leaves], high[leaves], tree.value[leaves, 0, 0])


def _weights(tree: Boxes, ends: np.ndarray) -> tuple[np.ndarray, float]:
    """``(L,)`` shares of the box that the leaves have, and the variance of what they predict."""
    weights = np.prod((tree.high - tree.low) / (ends[:, 1] - ends[:, 0]), axis=1)
    mean = weights @ tree.value
    return weights, float(weights @ (tree.value - mean) ** 2)


def _marginal(
    tree: Boxes, weights: np.ndarray, ends: np.ndarray, j: int
) -> tuple[np.ndarray, np.ndarray]:
    """E[ŷ | x_j] on each stretch between two cuts of x_j, and their shares of the range."""
    cuts = np.unique(np.concatenate([tree.low[:, j], tree.high[:, j]]))
    sizes = np.diff(cuts) / (ends[j, 1] - ends[j, 0])
    first, last = np.searchsorted(cuts, tree.low[:, j]), np.searchsorted(cuts, tree.high[:, j])
    share = (tree.high[:, j] - tree.low[:, j]) / (ends[j, 1] - ends[j, 0])
    height = tree.value * weights / share  # the leaf's part of the mean wherever it lies over x_j
    steps = np.bincount(first, height, len(cuts)) - np.bincount(last, height, len(cuts))
    return np.cumsum(steps)[:-1], sizes


def _variance(values: np.ndarray, weights: np.ndarray) -> float:
    mean = weights @ values
    return float(weights @ (values - mean) ** 2)


def _fanova_rows(known: Data, rng: np.random.Generator) -> list[tuple]:
    present = np.isfinite(known.x)
    rows, names = [], list(known.ranges)
    every = np.array([bounds(one) for one in known.ranges.values()])
    for mask in np.unique(present, axis=1).T:  # parameters that the same trials have, at once
        mine = (present == mask[:, None]).all(axis=0)
        count = int(mask.sum())
        if count < FEWEST or np.ptp(known.score[mask]) == 0:
            continue
        used = np.flatnonzero(mask)
        if count > MOST:
            used = rng.choice(used, MOST, replace=False)
        shared = np.asarray(present[used].all(axis=0))
        x, y, ends = known.x[np.ix_(used, shared)], known.score[used], every[shared]
        own = np.flatnonzero(mine[shared]).tolist()
        share = fanova(x, y, ends, TREES, _seed(rng), own)
        resampled, shuffled = [], []
        for _ in range(REGROWN):
            chosen = rng.integers(len(used), size=len(used))
            resampled.append(fanova(x[chosen], y[chosen], ends, FEW_TREES, _seed(rng), own))
        kinds = _kinds(compress(known.ranges.values(), list(mine)))
        different = np.unique(kinds)
        for _ in range(SHUFFLES):  # columns of each kind, shuffled, beside all the true ones
            alike = [
                [j for j, kind in zip(own, kinds, strict=True) if kind == k] for k in different
            ]
            copied = np.ravel([rng.choice(columns, COPIES) for columns in alike])
            dealt = np.hstack([x, rng.permuted(x[:, copied], axis=0)])
            box, last = np.vstack([ends, ends[copied]]), range(len(ends), dealt.shape[1])
            shuffled.append(fanova(dealt, y, box, FEW_TREES, _seed(rng), last))
        highest = np.reshape(shuffled, (SHUFFLES, -1, COPIES)).max(axis=(0, 2))
        noise = dict(zip(different, highest, strict=True))
        low, high = _interval(share, np.array(resampled))
        for i, j in enumerate(np.flatnonzero(mine)):
            found = share[i], low[i], high[i], noise[kinds[i]]
            rows.append((names[j], FANOVA, *found, count, len(known.score)))
    return rows


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


# ---- pairs and slices ----------------------------------------------------------------------------


class Forest(NamedTuple):
    """Regression trees over the parameters that all completed trials have."""

    ranges: dict[str, Distribution]  # of these parameters
    ends: np.ndarray  # (d, 2), the box of ``parameters.bounds``
    trees: list[Boxes]  # none with fewer than two such parameters
    trials: int


def forest(study: Study, space: Space | None = None, seed: int = 0) -> Forest:
    """What ``interactions`` and ``surface`` look at, since it takes longer than they do.

    Args:
        study, space, seed: as for ``importances``. No tree is grown with fewer than ``FEWEST``
            completed trials, fewer than two parameters that all of them have, or a constant score.

    Example:
        >>> grown = forest(study)
        >>> len(grown.trees), grown.trials
        (64, 24)
    """
    known = data(study, space)
    always = np.asarray(np.isfinite(known.x).all(axis=0))
    ranges = dict(compress(known.ranges.items(), list(always)))
    ends = np.array([bounds(one) for one in ranges.values()]).reshape(-1, 2)
    count = len(known.score)
    if count < FEWEST or np.ptp(known.score) == 0 or len(ranges) < 2:
        return Forest(ranges, ends, [], count)
    chosen = np.arange(count)
    if count > MOST:
        chosen = np.random.default_rng(seed).choice(chosen, MOST, replace=False)
    trees = grow(known.x[np.ix_(chosen, always)], known.score[chosen], ends, TREES, seed)
    return Forest(ranges, ends, trees, count)


def interactions(grown: Forest) -> pd.DataFrame:
    """Which two parameters do together what neither does alone.

        (Var E[ŷ | x_a, x_b] − V_a − V_b) / V

    Args:
        grown: of ``forest``.

    Returns:
        Columns ``first``, ``second`` (names), ``share`` of the variance over the space, a mean over
        the trees, and ``trials``; the largest first. Of the pairs among the ``PAIRS_OF`` parameters
        that explain most alone. Empty without trees.

    Source:
        Hutter et al., ICML 2014, as ``importances``.

    Example:
        >>> interactions(forest(study)).columns.tolist()
        ['first', 'second', 'share', 'trials']
    """
    columns = ["first", "second", "share", "trials"]
    if not grown.trees:
        return pd.DataFrame(columns=columns)
    names, ends = list(grown.ranges), grown.ends
    alone = np.zeros(len(names))
    weighed = [(tree, *_weights(tree, ends)) for tree in grown.trees]
    weighed = [one for one in weighed if one[2] > 0]
    single = np.array([
        [_variance(*_marginal(tree, weights, ends, j)) / variance for j in range(len(names))]
        for tree, weights, variance in weighed
    ])  # fmt: skip
    alone = single.mean(axis=0) if len(single) else alone
    largest = sorted(np.argsort(-alone)[:PAIRS_OF])
    rows = []
    for k, a in enumerate(largest):
        for b in largest[k + 1 :]:
            both = [_pair(tree, w, ends, a, b) / v for tree, w, v in weighed]
            share = max(0.0, float(np.mean(both) - alone[a] - alone[b])) if both else 0.0
            rows.append((names[a], names[b], share, grown.trials))
    found = pd.DataFrame(rows, columns=columns)
    return found.sort_values("share", ascending=False, ignore_index=True)


def surface(grown: Forest, first: str, second: str, points: int = 25) -> pd.DataFrame:
    """The score that a forest expects over two parameters, averaged over all others.

    Args:
        grown: of ``forest``.
        first, second: two different parameters of it.
        points: on each axis that has numbers; a choice has one for each value.

    Returns:
        Columns ``first``, ``second`` (values) and ``score``, one row for each point of the grid.

    Raises:
        ValueError: for other parameters, or where no tree could be grown.

    Example:
        >>> surface(forest(study), "vae_lr", "classifier_rehearsal").shape
        (625, 3)
    """
    ranges, ends, trees, _ = grown
    if not trees or not {first, second} <= {*ranges} or first == second:
        has = ", ".join(ranges) if trees else "none, for want of completed trials"
        raise ValueError(f"expected two parameters that all trials have ({has}), got {first},"
                         f" {second}")  # fmt: skip
    a, b = list(ranges).index(first), list(ranges).index(second)
    (at_a, shown_a), (at_b, shown_b) = (
        _places(ranges[name], ends[j], points) for name, j in ((first, a), (second, b))
    )
    total = np.zeros((len(at_a), len(at_b)))
    for tree in trees:
        weights, _ = _weights(tree, ends)
        total += _over_pair(tree, weights, ends, (a, b), (at_a, at_b))
    grid = np.meshgrid(np.arange(len(at_a)), np.arange(len(at_b)), indexing="ij")
    return pd.DataFrame({
        "first": [shown_a[i] for i in grid[0].ravel()],
        "second": [shown_b[i] for i in grid[1].ravel()],
        "score": (total / len(trees)).ravel(),
    })  # fmt: skip


def slices(study: Study, name: str, space: Space | None = None) -> Slice:
    """One parameter's values against the scores of the completed trials that have it.

    Args:
        study, space: as for ``importances``.
        name: of a parameter that was searched.

    Returns:
        The trials, and the median and quartiles of the score in up to ``BINS`` bins with equally
        many trials, or for each choice.

    Raises:
        ValueError: if nothing of that name was searched.

    Example:
        >>> slices(study, "vae_lr").bins[["median", "trials"]].round(2)
           median  trials
        0    0.70       6
        1    0.78       6
        2    0.83       6
        3    0.76       6
    """
    ranges = searched(study.trials, space)
    if name not in ranges:
        raise ValueError(f"expected one of {', '.join(ranges) or 'no parameter'}; got {name}")
    column = f"config.{name}"
    trials = scored(study.trials.filter(["role", "trial_id", "status", "score", column]))
    values = trials[column]
    here = values.notna().to_numpy()
    points = pd.DataFrame({
        "trial_id": trials.trial_id[here], "value": values[here],
        "score": trials.score[here].astype(float),
    }).reset_index(drop=True)  # fmt: skip
    names = ["low", "high", "median", "q25", "q75", "trials"]
    if points.empty:
        return Slice(points, pd.DataFrame(columns=names))
    number = codes(points.value, ranges[name])
    if isinstance(ranges[name], CategoricalDistribution):
        groups = number
    else:
        count = min(BINS, max(1, int(np.sqrt(len(points)))))
        cuts = np.quantile(number, np.linspace(0, 1, count + 1)[1:-1])
        groups = np.searchsorted(cuts, number, side="right")
    rows = []
    for group in np.unique(groups):
        part = points[groups == group]
        q25, median, q75 = np.quantile(part.score, [0.25, 0.5, 0.75])
        ordered = part.value.iloc[np.argsort(number[groups == group], kind="stable")]
        rows.append((ordered.iloc[0], ordered.iloc[-1], median, q25, q75, len(part)))
    return Slice(points, pd.DataFrame(rows, columns=names))


def _pair(tree: Boxes, weights: np.ndarray, ends: np.ndarray, a: int, b: int) -> float:
    """Var E[ŷ | x_a, x_b] of one tree."""
    cuts = [np.unique(np.concatenate([tree.low[:, j], tree.high[:, j]])) for j in (a, b)]
    middles = [(c[1:] + c[:-1]) / 2 for c in cuts]
    sizes = [np.diff(c) / (ends[j, 1] - ends[j, 0]) for c, j in zip(cuts, (a, b), strict=True)]
    means = _over_pair(tree, weights, ends, (a, b), middles)
    return _variance(means.ravel(), np.outer(*sizes).ravel())


def _over_pair(tree: Boxes, weights, ends, pair, points) -> np.ndarray:
    """E[ŷ | x_a, x_b] of one tree at the points of a grid."""
    inside, share = [], 1.0
    for j, at in zip(pair, points, strict=True):
        low, high = tree.low[:, j, None], tree.high[:, j, None]
        inside.append(((low < at) & (at <= high)).astype(float))  # (L, points)
        share = share * (tree.high[:, j] - tree.low[:, j]) / (ends[j, 1] - ends[j, 0])
    return (inside[0] * (tree.value * weights / share)[:, None]).T @ inside[1]


def _places(one: Distribution, ends: np.ndarray, points: int) -> tuple[np.ndarray, list]:
    """Where to look along an axis, as ``codes`` has it, and as it is to be shown."""
    if isinstance(one, CategoricalDistribution):
        return np.arange(len(one.choices), dtype=float), list(one.choices)
    low, high = np.log([one.low, one.high]) if one.log else (one.low, one.high)
    at = np.linspace(low, high, points)
    at = np.clip(at, ends[0] + 1e-12 * np.ptp(ends), ends[1])
    return at, (np.exp(at) if one.log else at).tolist()
