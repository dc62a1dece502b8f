"""What may be wrong with a search, each with its evidence in numbers and what to do about it."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from optuna.distributions import CategoricalDistribution
from scipy import stats

from analysis import anytime, importance, look, parameters, stopping
from analysis.commands import resume, search_again
from analysis.knobs import held, knobs
from analysis.parameters import Space
from analysis.reading import Study, label_of_winner
from analysis.statistics import paired_difference

SEVERITIES = ("problem", "warning", "note")
FEW_SEEDS = 5  # fewer make Student's intervals wide: t is 12.7 with 2 of them, 4.3 with 3
ENOUGH = 30  # completed trials, before a parameter may be called dead
EDGE = 0.1  # of a range, at either end
CERTAIN = 0.05  # chance of a finding where there is nothing, over all parameters together
GAP = 0.02  # validation above test that is worth a word, a fraction


class Finding(NamedTuple):
    """One thing worth knowing before the result is believed."""

    severity: Literal["problem", "warning", "note"]
    title: str  # what, in a few words
    evidence: str  # in numbers
    advice: str  # what to do; a command stands between backticks


def findings(
    study: Study, space: Space | None = None, importances: pd.DataFrame | None = None
) -> list[Finding]:
    """What may be wrong with a search, the worst first; nothing where all is well.

    Args:
        study: of ``analysis.load``, also unfinished.
        space: name -> Optuna's distribution, of every parameter searched. Without it nothing is
            said of the edges of ranges.
        importances: of ``importance.importances``, if that has been computed; it takes a second.

    Returns:
        Problems, which leave no result to believe or say that the method fails; warnings, which ask
        for another run; notes, which say how far a result carries.

    Example:
        >>> [one.severity for one in findings(study)]
        ['warning', 'warning', 'note']
    """
    search = parameters.of_search(study.trials)
    if search.empty:
        return [
            Finding(
                "problem",
                "no trial has ended",
                f"0 of {study.settings.get('trials', '?')} trials are in the record",
                f"wait, or go on with `{resume(study)}`",
            )
        ]
    found = [*_progress(study), *_failed(study), *_duplicates(study), *_start(study)]
    scored = parameters.scored(study.trials)
    if len(scored):
        if importances is None and len(scored) >= ENOUGH:
            importances = importance.importances(study, space)
        found += [*_edges(study, space), *_dead(study, importances), *_noise(study)]
        found += [*_rising(study), *_stopping(study)]
    found += _protocol(study)
    return sorted(found, key=lambda one: SEVERITIES.index(one.severity))


def failures(study: Study) -> pd.DataFrame:
    """Failed trials of the search, grouped by cause.

    Returns:
        Columns ``cause`` (the reason in the record up to where it happened: "reconstruction became
        nan"), ``trials``, ``share`` of all trials of the search, ``tasks`` (learned before, the
        median) and ``trial_ids`` (a list); the most frequent first.

    Example:
        >>> failures(study)
                                cause  trials  share  tasks     trial_ids
        0  diverged: classifier = nan       3  0.075    0.0  [11, 13, 39]
    """
    search = parameters.of_search(study.trials)
    failed = search.loc[search.status == "failed"]
    reasons = failed.reason.fillna("no reason in the record").astype(str)
    causes = reasons.str.replace(r"(,? (in|after) task \d+.*)|(\s*\n.*)", "", regex=True)
    groups = failed.assign(cause=causes).groupby("cause")
    rows = [
        (cause, len(rows), len(rows) / len(search), float(rows.tasks_learned.median()),
         [int(n) for n in rows.trial_id])
        for cause, rows in groups
    ]  # fmt: skip
    names = ["cause", "trials", "share", "tasks", "trial_ids"]
    return pd.DataFrame(rows, columns=names).sort_values(
        by=["trials", "cause"], ascending=[False, True], ignore_index=True
    )


def _progress(study: Study) -> list[Finding]:
    """Whether the study has come to its end."""
    search, asked = parameters.of_search(study.trials), study.settings.get("trials")
    completed = int((search.status == "completed").sum())
    if not completed:
        counts = ", ".join(f"{n} {status}" for status, n in search.status.value_counts().items())
        advice = "look at the causes of failure, and widen or move the space's ranges"
        return [Finding("problem", "no trial has completed", counts, advice)]
    if study.best is not None:
        return []
    title = "the study is not at its end: no winner has been chosen on fresh seeds"
    evidence = f"{len(search)} of {asked} trials have ended, {completed} completed"
    return [Finding("warning", title, evidence, f"wait, or go on with `{resume(study)}`")]


def _failed(study: Study) -> list[Finding]:
    causes, total = failures(study), len(parameters.of_search(study.trials))
    count = int(causes.trials.sum())
    if count < 1:
        return []
    severity = "problem" if count > total / 4 else "warning" if count > total / 20 else "note"
    first = causes.head(3)
    said = "; ".join(f"{n} × {why}" for why, n in zip(first.cause, first.trials, strict=True))
    where = ", ".join(f"trial {n}" for n in causes.trial_ids[0][:3])
    return [
        Finding(
            severity,
            "trials failed",
            f"{count} of {total} ({count / total:.0%}): {said}",
            f"replay one to see where ({where}), and narrow the ranges that these trials share",
        )
    ]


def _duplicates(study: Study) -> list[Finding]:
    """Configurations that were tried twice, which gives the same numbers twice."""
    search = parameters.of_search(study.trials)
    repeated = int(parameters.configurations(search).duplicated().sum())
    if not repeated:
        return []
    severity = "warning" if repeated > len(search) / 20 else "note"
    return [
        Finding(
            severity,
            "configurations were tried more than once",
            f"{repeated} of {len(search)} trials repeat an earlier one, with the same numbers",
            "the space is smaller than the budget: lower --trials, or let more parameters vary",
        )
    ]


def _start(study: Study) -> list[Finding]:
    """How much of the search was not led by its results."""
    sampler = study.settings.get("sampler", "tpe")
    total, drawn = len(parameters.of_search(study.trials)), len(anytime.drawn_at_random(study))
    if sampler in ("random", "qmc") or drawn <= total / 4 or study.best is None:
        return []
    enough = 4 * (drawn + 1)
    return [
        Finding(
            "warning" if drawn > total / 2 else "note",
            "much of the search was random",
            f"{drawn} of {total} trials ({drawn / total:.0%}) were drawn before {sampler} had"
            " results to learn from",
            f"go on: `{resume(study, f' --trials {enough}')}` or more",
        )
    ]


def _edges(study: Study, space: Space | None) -> list[Finding]:
    """Ranges that the best trials press against."""
    best = parameters.top(study.trials)
    if space is None or len(parameters.scored(study.trials)) < 4 * len(best):
        return []
    values = parameters.configurations(best)
    ranges = parameters.searched(study.trials, space)
    numbers = {
        name: one
        for name, one in ranges.items()
        if not isinstance(one, CategoricalDistribution) and not one.single() and name in values
    }
    found = []
    for name, one in numbers.items():
        low, high = parameters.bounds(one)
        place = (parameters.codes(values[name], one) - low) / (high - low)
        place = place[np.isfinite(place)]
        if not len(place):
            continue
        for end, near in (("lower", place <= EDGE), ("upper", place >= 1 - EDGE)):
            count = int(near.sum())
            # A range of few whole numbers has more than a tenth of them at its end.
            chance = max(EDGE, (one.step or 0) / (high - low) if not one.log else 0)
            limit = one.low if end == "lower" else one.high
            if end == "lower" and (limit == 0 or (limit == 1 and one.step == 1)):
                continue  # nothing lies beyond: no negative weight, no 0 steps
            if stats.binom.sf(count - 1, len(place), chance) < CERTAIN / (2 * len(numbers)):
                found.append(
                    Finding(
                        "warning",
                        f"the best trials lie at the {end} end of {name}",
                        f"{count} of the {len(place)} best are within a tenth of the range of"
                        f" {limit:g}",
                        f"move that end of {name} in search_spaces/{study.settings.get('method')}"
                        ".py, and search again",
                    )
                )
    return found


def _dead(study: Study, importances: pd.DataFrame | None) -> list[Finding]:
    """Parameters that neither measure of importance tells from noise."""
    if importances is None or max(importances["of"].tolist(), default=0) < ENOUGH:
        return []
    dead, known = knobs(study, importances, None).idle, importances.name.nunique()
    if not dead:
        return []
    return [
        Finding(
            "note",
            f"{len(dead)} of {known} parameters are not shown to matter",
            ", ".join(f"{one.name} (at most {one.at_most:.0%} of the variance)" for one in dead),
            f"hold them, so that trials go to the others: `{search_again(study, held(dead))}`",
        )
    ]


def seed_spread(study: Study) -> tuple[float, int]:
    """How much the score of one configuration differs from seed to seed.

    Returns:
        The standard deviation within configurations, pooled over those of the study's method that
        were trained on fresh seeds, and its degrees of freedom; NaN and 0 if none was on two.
    """
    role = "choice" if (study.trials.role == "choice").any() else "final"
    same = (study.trials.role == role) & (study.trials.method == study.settings.get("method"))
    rows = study.trials.loc[same].dropna(subset=["score"])
    groups = rows.groupby("label").score
    within = (rows.score - groups.transform("mean")) ** 2
    freedom = len(rows) - groups.ngroups
    return (float(np.sqrt(within.sum() / freedom)), freedom) if freedom > 0 else (np.nan, 0)


def _noise(study: Study) -> list[Finding]:
    """Whether the best trials differ by more than one of them does from seed to seed."""
    spread, freedom = seed_spread(study)
    best = parameters.scored(study.trials).nlargest(10, "score").score
    if not freedom or len(best) < 3:
        return []
    width = float(best.max() - best.min())
    if width > stats.norm.ppf(0.975) * np.sqrt(2) * spread:
        return []
    return [
        Finding(
            "warning",
            "the best trials do not differ by more than chance",
            f"the {len(best)} best scores lie within {100 * width:.1f} points; one configuration"
            f" differs by {100 * spread:.1f} from seed to seed (standard deviation)",
            "read the winner as one of many as good; more finalists and seeds tell them apart:"
            f" `{resume(study, ' --top 5 --final-seeds 10')}`",
        )
    ]


def _rising(study: Study) -> list[Finding]:
    """Whether the best score still rose when the budget ended."""
    curve = anytime.best_so_far(study)
    then = curve.score.iloc[: max(1, 3 * len(curve) // 4)].iloc[-1]
    gain, spread = float(curve.score.iloc[-1] - then), seed_spread(study)[0]
    if len(curve) < 20 or not gain > (spread if np.isfinite(spread) else 0.01):
        return []
    return [
        Finding(
            "note",
            "the best score was still rising",
            f"it rose by {100 * gain:.1f} points over the last quarter of {len(curve)} trials",
            f"go on: `{resume(study, f' --trials {2 * len(curve)}')}`",
        )
    ]


def _stopping(study: Study) -> list[Finding]:
    """Rungs at which what trials are stopped by says nothing of the end, and lost winners."""
    found, values = [], stopping.rung_values(study)
    for row in stopping.rungs(study, values).to_dict("records"):
        if row["stopped"] and row["completed"] >= 10 and row["low"] <= 0:
            found.append(
                Finding(
                    "warning",
                    f"stopping after task {row['tasks']:.0f} was close to a lottery",
                    f"{row['stopped']:.0f} trials were stopped there; among the"
                    f" {row['completed']:.0f} that completed, the value there and the score at the"
                    " end have a rank correlation of"
                    f" {row['correlation']:.2f} ({row['low']:.2f} to {row['high']:.2f})",
                    f"search without it: `{search_again(study, ' --scheduler none')}`",
                )
            )
    lost = stopping.regret(study, values)
    if lost.beat:
        found.append(
            Finding(
                "warning",
                "a trial like those that were stopped would have been the best",
                f"{lost.beat} of {len(lost.doomed)} control trials that would have been stopped"
                f" ended above all others, by {100 * lost.loss:.1f} points",
                f"search without it: `{search_again(study, ' --scheduler none')}`",
            )
        )
    return found


def _protocol(study: Study) -> list[Finding]:
    """What the end of a study does and does not show."""
    if study.best is None:
        return []
    best, compared = study.best, study.best.get("comparison", {})
    checks: list[Callable[[Study, dict, dict], list[Finding]]] = [
        _seeds, _gain, _floor, _gap, _references, _opened, _optimistic
    ]  # fmt: skip
    return [one for check in checks for one in check(study, best, compared)]


def _per_seed(compared: dict, label: str) -> dict[int, float]:
    return compared.get(label, {}).get("per_seed_test_joint_accuracy", {})


def _seeds(study: Study, best: dict, compared: dict) -> list[Finding]:
    seeds = len(_per_seed(compared, "winner"))
    if not seeds or seeds >= FEW_SEEDS:
        return []
    t = "no interval" if seeds == 1 else f"t = {stats.t.ppf(0.975, seeds - 1):.1f}"
    return [
        Finding(
            "warning",
            "few seeds in the final phase",
            f"{seeds}, so {t} in the 95 % intervals; with {FEW_SEEDS} it is"
            f" {stats.t.ppf(0.975, FEW_SEEDS - 1):.1f}",
            f"`{resume(study, f' --final-seeds {FEW_SEEDS}')}`",
        )
    ]


def _gain(study: Study, best: dict, compared: dict) -> list[Finding]:
    gain = best.get("gain_over_default")
    if not gain or gain["low"] > 0:
        return []
    if best["trial"] is None:
        if len(parameters.of_search(study.trials)) < 2:
            return []  # nothing else was tried
        evidence = "no trial of the search was better than the default on fresh seeds"
        return [Finding("warning", "the default won", evidence, "take the default")]
    mean, low, high = (look.points(gain[k]) for k in ("mean", "low", "high"))
    return [
        Finding(
            "warning",
            "tuning is not shown to help",
            f"winner − default on test data is {mean} points ({low} to {high}, 95 %, n ="
            f" {gain['n']} seeds)",
            f"more seeds: `{resume(study, ' --final-seeds 10')}`; or take the default",
        )
    ]


def _floor(study: Study, best: dict, compared: dict) -> list[Finding]:
    own, floor = _per_seed(compared, "winner"), _per_seed(compared, "sequential")
    shared = [seed for seed in own if seed in floor]
    if not shared or study.trials.tasks_learned.max() < 2:
        return []
    gain = paired_difference([own[s] for s in shared], [floor[s] for s in shared])
    if gain.mean > 0:
        return []
    return [
        Finding(
            "problem",
            "the winner is no better than training in sequence",
            f"winner − sequential on test data is {look.points(gain.mean)} points, n = {gain.n}",
            "the method does not work on this stream as it is searched; see what failed first",
        )
    ]


def _gap(study: Study, best: dict, compared: dict) -> list[Finding]:
    """Whether validation promises more than test keeps, on the same seeds and stream."""
    if study.settings.get("protocol", "end_of_stream") != "end_of_stream":
        return []
    won = (study.trials.role == "final") & (study.trials.label == label_of_winner(best))
    rows = study.trials.loc[won].dropna(subset=["joint_accuracy"])
    validation = dict(zip(rows.seed.astype(int), rows.joint_accuracy.astype(float), strict=True))
    test = _per_seed(compared, "winner")
    shared = [seed for seed in test if seed in validation]
    if not shared:
        return []
    gap = paired_difference([validation[s] for s in shared], [test[s] for s in shared])
    if gap.mean < GAP or not gap.low > 0:
        return []
    return [
        Finding(
            "warning",
            "validation promises more than test keeps",
            f"the winner's validation − test joint accuracy is {look.points(gap.mean)} points"
            f" ({look.points(gap.low)} to {look.points(gap.high)}, n = {gap.n} seeds)",
            "report test numbers only; validation data is not drawn as test data is",
        )
    ]


def _references(study: Study, best: dict, compared: dict) -> list[Finding]:
    names = {"sequential": "floor", "joint": "ceiling"}
    method = study.settings.get("method")
    missing = [name for name in names if name not in compared and name != method]
    if not missing:
        return []
    said = " and ".join(f"{name} (the {names[name]})" for name in missing)
    return [
        Finding(
            "note",
            "no reference to read the result against",
            f"{said} was not trained on these seeds",
            f"compare with a study of it: `{search_again(study, ' --trials 1', missing[0])}`",
        )
    ]


def _opened(study: Study, best: dict, compared: dict) -> list[Finding]:
    times = int(best.get("test_opened") or 0)
    again = f" --seed {int(study.settings.get('seed', 0)) + 1}"
    if times < 2:
        return []
    return [
        Finding(
            "warning",
            "test data was opened more than once",
            f"{times} times: what was changed after the first may have been chosen by it",
            f"report it, or choose anew under another seed: `{search_again(study, again)}`",
        )
    ]


def _optimistic(study: Study, best: dict, compared: dict) -> list[Finding]:
    if study.settings.get("protocol", "end_of_stream") != "end_of_stream":
        return []
    return [
        Finding(
            "note",
            "tuned on the stream that is reported",
            "protocol end_of_stream: the search saw validation data of every task, future ones"
            " included, as is the custom",
            f"for a stricter result: `{search_again(study, ' --protocol other_stream')}`",
        )
    ]
