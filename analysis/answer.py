"""A study's answer in three sentences: what was found, how it stands, whether to believe it."""

from collections.abc import Mapping
from typing import Any

from analysis import look
from analysis.parameters import of_search, scored
from analysis.reading import Study, label_of_winner
from analysis.statistics import Interval, mean_interval

FEW = 5  # seeds below which an interval says little
FAR = 0.03  # a gap between validation and test data beyond which the choice looks lucky


def sentences(study: Study) -> list[str]:
    """Three sentences, generated from the record; fewer where there is less to say.

    Args:
        study: at any moment of its life.

    Example:
        >>> print(sentences(study)[0])  # doctest: +ELLIPSIS
        Use trial 1: it reaches 80.2 % (95 % interval 78.9 to 81.6, 5 seeds) joint accuracy ...
    """
    if study.best is None:
        return unfinished(study)
    return [found(study.best), standing(study), trust(study)]


def found(best: Mapping[str, Any]) -> str:
    """What the search found, and how much better it is than the default."""
    judged = best["judged_by"]
    what = f"{look.name(judged.removeprefix('test_'))} on test data"
    reached = ranged(as_interval(best["comparison"]["winner"][judged]))
    if best["trial"] is None:
        return (
            f"Keep the default: it reaches {reached} {what}, and nothing that the search found beat"
            " it on validation data."
        )
    gain = as_interval(best["gain_over_default"])
    return f"Use trial {best['trial']}: it reaches {reached} {what}, {difference(gain)}."


def difference(gain: Interval) -> str:
    """The gain over the default in points, and whether it is one."""
    points = f"{look.points(gain.mean)} points over the default"
    if gain.n < 2:
        return f"{points} on one seed, which says nothing about chance"
    low, high = look.points(gain.low), look.points(gain.high)
    told = f"{points} (95 % interval {low} to {high}, paired over {gain.n} seeds)"
    if gain.low > 0:
        return told
    return f"{told}, which {'is worse' if gain.high < 0 else 'may be chance'}"


def standing(study: Study) -> str:
    """Where the winner lies between fine-tuning and training on everything at once, and what it
    forgets."""
    best = study.best or {}
    compared, judged = best["comparison"], best["judged_by"]
    own = study.trials[
        (study.trials.role == "final") & (study.trials.label == label_of_winner(best))
    ]
    lost = own.forgetting.dropna()
    forgets = ""
    if len(lost):
        forgets = f"it forgets {ranged(mean_interval(lost.to_numpy()))} on validation data"
    ends = [compared.get(name, {}).get("test_joint_accuracy") for name in ("sequential", "joint")]
    if None in ends:
        said = f"; {forgets}" if forgets else ""
        return f"Floor and ceiling were not trained, so nobody knows how good that is{said}."
    floor, ceiling = (as_interval(end).mean for end in ends)
    scale = (
        f"In joint accuracy, plain fine-tuning reaches {100 * floor:.1f} % and training on"
        f" everything at once {100 * ceiling:.1f} %"
    )
    if judged == "test_joint_accuracy" and ceiling > floor:
        share = (as_interval(compared["winner"][judged]).mean - floor) / (ceiling - floor)
        scale += f", so the winner closes {100 * share:.0f} % of the gap between them"
    return f"{scale}; {forgets}." if forgets else f"{scale}."


def trust(study: Study) -> str:
    """Whether to believe it: how it was chosen, and what speaks against it."""
    best, doubts = study.best or {}, []
    metric = study.settings.get("metric", "joint_accuracy")
    chosen = as_interval(best["candidates"][label_of_winner(best)])
    tried = int((study.trials.role == "search").sum())
    judged = best["judged_by"]
    said = (
        f"It was chosen from {look.count(tried, 'trial')} for {100 * chosen.mean:.1f} %"
        f" {look.name(metric)} on validation data, a mean over {look.count(chosen.n, 'fresh seed')}"
    )
    if judged.removeprefix("test_") == metric:
        gap = chosen.mean - as_interval(best["comparison"]["winner"][judged]).mean
        side = "above" if gap > 0 else "below"
        said += f", {100 * abs(gap):.1f} points {side} test data"
        if gap > FAR:
            doubts.append("the choice looks lucky, since test data does not bear it out")
    if chosen.n < FEW:
        doubts.append(f"{look.count(chosen.n, 'seed')} are few")
    if best["protocol"] == "end_of_stream":
        doubts.append("the search saw the class order and the data set that are reported")
    if best.get("test_opened", 1) > 1:
        doubts.append(f"test data was opened {best['test_opened']} times")
    if tried < int(best["trials"]):
        doubts.append(f"only {tried} of {best['trials']} trials have ended")
    return f"{said}; bear in mind: {look.listed(doubts)}." if doubts else f"{said}."


def unfinished(study: Study) -> list[str]:
    """What can be said before there is a winner."""
    search = of_search(study.trials)
    planned = int(study.settings["trials"])
    metric = study.settings.get("metric", "joint_accuracy")
    statuses = search.status.value_counts()
    told = ", ".join(f"{n} {status}" for status, n in statuses.items())
    said = [f"No winner yet: {len(search)} of {planned} trials have ended ({told or 'none'})."]
    ended = scored(study.trials)
    if len(ended):
        top = ended.to_dict("records")[int(ended.score.argmax())]
        said.append(
            f"So far trial {top['trial_id']} is ahead with {100 * top['score']:.1f} %"
            f" {look.name(metric)} on validation data, on one seed, which flatters the luckiest of"
            " many."
        )
    elif len(search):
        if (search.status == "failed").all():
            reason = search.reason.dropna().value_counts()
            cause = f" The most common cause: {reason.index[0]}." if len(reason) else ""
            said.append(f"Every trial has failed, so there is nothing to choose from.{cause}")
        else:
            said.append("No trial has come to the end of the stream.")
    said.append(f"Go on with `python run_search.py --resume {study.directory}`.")
    return said


def as_interval(plain: Mapping[str, float]) -> Interval:
    """An interval of ``best.yaml``."""
    bounds = (float(plain[key]) for key in ("mean", "low", "high"))
    return Interval(*bounds, n=int(plain["n"]))


def ranged(interval: Interval) -> str:
    """``82.2 % (95 % interval 80.9 to 83.5, 5 seeds)``."""
    mean, low, high = (f"{100 * x:z.1f}".replace("-", "−") for x in interval[:3])
    seeds = look.count(interval.n, "seed")
    bounds = (
        f"95 % interval {low} to {high}, {seeds}" if interval.n > 1 else "one seed, no interval"
    )
    return f"{mean} % ({bounds})"
