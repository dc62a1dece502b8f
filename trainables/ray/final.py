"""The final phase: fresh seeds for the best few, a winner by validation, then the test set, once.

A search's best score is the luckiest of many. So the best configurations and the default are
trained again on seeds that no search trial had; the winner is the one with the best mean on
validation data; and only then is test data opened, for the winner, the default, the floor
(``sequential``) and the ceiling (``joint``). Where the protocol reports another stream than that of
the search, the winner is chosen on the stream of the search first, and only then is the other one
walked.
"""

import functools
import itertools
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import ray
import yaml
from ray.exceptions import RayError

import search_spaces
from analysis import tables
from analysis.reading import label_of_winner
from analysis.schema import FIRST_CHOICE, FIRST_FINAL
from analysis.statistics import Interval, mean_interval, paired_difference
from analysis.store import Record
from trainables.benchmarks.embedders import IDENTITY, TRAINABLE
from trainables.ray import reruns
from trainables.ray.names import END_OF_STREAM, OF_GENERATORS
from trainables.ray.recorder import checkpoint_file
from trainables.ray.reruns import Contender, Rerun, fresh_seeds, states
from trainables.ray.settings import Study, StudyError
from trainables.ray.study import Session, commit, report_plan, versions
from trainables.ray.trial import Plan, stream_of

FLOOR, CEILING = "sequential", "joint"
AFTER_EACH = "validation_cas_after_each_task"
ROLE, CHOICE = "final", "choice"


class NothingCompleted(Exception):
    """No trial of a search came to the end of the stream."""


class OnTest(NamedTuple):
    """What a rerun reaches on test data after the last task."""

    accuracy: list[float]  # on each task
    examples: list[int]  # of each task
    quality: dict[str, list[float]]  # measure -> one a task

    def joint(self, row: Sequence[float]) -> float:
        """The mean of a row in which every example counts once."""
        return float(np.average(row, weights=self.examples))


def contenders(study: Study, rows: Sequence[dict[str, Any]]) -> list[Contender]:
    """The default, the best completed trials of the search, the floor and the ceiling.

    Args:
        study: settings.
        rows: of trials.parquet; those of the search are looked at.
    """
    default = Contender("default", study.method, study.default())
    found = [default]
    ranked = sorted(
        (r for r in rows if r["role"] == "search" and r["status"] == "completed"),
        key=lambda r: (-r["score"], r["trial_id"]),
    )
    for row in ranked:
        one = Contender(f"trial {row['trial_id']}", study.method, row["config"], row["trial_id"])
        if one.key not in {c.key for c in found} and len(found) <= study.top:
            found.append(one)
    for name in (FLOOR, CEILING) if study.references else ():
        found.append(Contender(name, name, search_spaces.load(name).DEFAULT))
    return found


def state_file(directory: Path, trial_id: int) -> Path:
    """Where a rerun's last state waits for the test data."""
    return checkpoint_file(states(directory, "final"), trial_id)


def run(session: Session) -> tuple[list[tables.Contender], str]:
    """Train the contenders on fresh seeds, choose the winner, open the test data.

    What an earlier, interrupted run of this phase has finished is not trained again. Writes
    ``best.yaml``.

    Returns:
        The rows of the final table (winner, default, floor, ceiling), and the answer in words.

    Raises:
        NothingCompleted: if no trial of the search has.
    """
    study, directory, record = session.study, session.directory, session.record
    rows = record.trials()
    if not any(r["role"] == "search" and r["status"] == "completed" for r in rows):
        raise NothingCompleted("no trial has completed, so there is nothing to choose from")
    lineup = contenders(study, rows)
    tuned = [c for c in lineup if c.label not in (FLOOR, CEILING)]
    same = study.protocol == END_OF_STREAM  # else what is reported has no say in the choice
    tried = train(session, lineup) if same else choose(session, tuned)
    scores = {c.label: [r.score for r in tried if r.contender.key == c.key] for c in tuned}
    winner = max(tuned, key=lambda c: np.mean(scores[c.label]))
    shown = {c.label: c for c in lineup if c.label in ("default", FLOOR, CEILING)}
    shown = {k: c for k, c in shown.items() if k == "default" or c.key != lineup[0].key}
    shown = {"winner": winner, **shown}
    done = tried if same else train(session, list(shown.values()))
    test, opened = open_test(session, shown, done)
    table, plain = comparison(shown, done, test, study.metric)
    for label in ("winner", "default"):
        if curve := cas_curve(record, [r for r in done if r.contender.key == shown[label].key]):
            plain[label][AFTER_EACH] = curve
    best = write_best(study, directory, lineup, plain, scores, opened=bool(opened))
    return table, in_words(best, directory)


def train(session: Session, lineup: Sequence[Contender]) -> list[Rerun]:
    """Every contender on every fresh seed of this phase, as ``reruns.train``."""
    settled = functools.partial(is_settled, session.record, session.directory)
    seeds, plan = seeds_of(session.study), report_plan(session.study)
    return reruns.train(session, lineup, ROLE, seeds, FIRST_FINAL, plan, settled, config_of)


def choose(session: Session, lineup: Sequence[Contender]) -> list[Rerun]:
    """Every contender on as many other fresh seeds, on the stream of the search."""
    seeds = fresh_seeds(CHOICE, session.study.seed, session.study.final_seeds)
    done = reruns.train(session, lineup, CHOICE, seeds, FIRST_CHOICE)
    shutil.rmtree(states(session.directory, CHOICE), ignore_errors=True)
    return done


def seeds_of(study: Study) -> list[int]:
    """The fresh seeds of this phase."""
    return fresh_seeds(ROLE, study.seed, study.final_seeds)


def is_settled(record: Record, directory: Path, row: dict[str, Any]) -> bool:
    """Whether an earlier run of the phase leaves nothing to train for this row."""
    trial_id = row["trial_id"]
    tested = record.row(trial_id, row["tasks_learned"] - 1, "test")
    return bool(row["status"] == "failed" or tested or state_file(directory, trial_id).exists())


def config_of(
    session: Session, contender: Contender, seed: int, trial_id: int, role: str, plan: Plan
) -> dict[str, Any]:
    """As ``reruns.config_of``; generators are measured, and samples of the first seed are kept."""
    study = session.study
    config = reruns.config_of(session, contender, seed, trial_id, role, plan)
    config["plan"]["quality"] = True
    if contender.method != study.method and study.embedder == TRAINABLE:
        config["plan"]["embedder"] = IDENTITY  # floor and ceiling train all of their network
    if contender.method == study.method and seed == seeds_of(study)[0]:
        file = session.directory.absolute() / "generated" / f"{trial_id}.safetensors"
        config["generated"] = {"file": str(file), "label": contender.label}
    return config


def open_test(
    session: Session, shown: dict[str, Contender], done: Sequence[Rerun]
) -> tuple[dict[int, OnTest], int]:
    """Results on test data, by trial_id, of the reruns to be shown.

    What was opened before is read from the record; also returns how many reruns were evaluated now.
    """
    record, actors = session.record, session.engines.actors
    keys = {c.key for c in shown.values()}
    chosen = [r for r in done if r.contender.key in keys and r.row["status"] == "completed"]
    plan = report_plan(session.study)
    last = len(stream_of(plan).tasks) - 1
    known = {
        r.trial_id: OnTest(*row, record.quality(r.trial_id, last, "test"))
        for r in chosen
        if (row := record.row(r.trial_id, last, "test"))
    }
    unopened = [r for r in chosen if r.trial_id not in known]
    futures = [
        actor.test_row.remote(config_of(session, r.contender, r.seed, r.trial_id, ROLE, plan))
        for actor, r in zip(itertools.cycle(actors), unopened, strict=False)
    ]
    try:
        rows = ray.get(futures)
    except RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise StudyError(f"the test data could not be evaluated: {reason}") from error
    for rerun, row in zip(unopened, rows, strict=True):
        found = known[rerun.trial_id] = OnTest(*row)
        record.task(
            rerun.trial_id,
            rerun.seed,
            last,
            {"test": found.accuracy},
            {"test": found.examples},
            quality={"test": found.quality},
        )
        state_file(session.directory, rerun.trial_id).unlink(missing_ok=True)
    record.flush()
    return known, len(unopened)


def comparison(
    shown: dict[str, Contender], done: Sequence[Rerun], test: dict[int, OnTest], metric: str
) -> tuple[list[tables.Contender], dict[str, dict[str, Any]]]:
    """Rows of the final table, and the same for ``best.yaml``.

    A seed on which a contender diverged has accuracy 0, no forgetting, and 0 of the measure that
    the study is about: its metric, if that is one of generators, else CAS. What a method cannot
    have is left out.
    """
    rows, plain = [], {}
    measure = metric if metric in OF_GENERATORS else "cas"
    on_test = [(r.contender.method, test[r.trial_id]) for r in done if r.trial_id in test]
    measured = {method for method, found in on_test if measure in found.quality}
    measured -= {method for method, found in on_test if measure not in found.quality}
    for label, contender in shown.items():
        reruns = sorted((r for r in done if r.contender.key == contender.key), key=lambda r: r.seed)
        ended = [test.get(r.trial_id) for r in reruns]
        joint = [0.0 if x is None else x.joint(x.accuracy) for x in ended]
        average = [0.0 if x is None else float(np.mean(x.accuracy)) for x in ended]
        quality = {}
        if contender.method in measured:
            quality[measure] = [0.0 if x is None else x.joint(x.quality[measure]) for x in ended]
        kept = [r.row["forgetting"] for r in reruns]
        of_search = "" if contender.trial is None else f" (trial {contender.trial})"
        name = {FLOOR: f"{FLOOR} (floor)", CEILING: f"{CEILING} (ceiling)"}.get(label, label)
        rows.append(
            tables.Contender(
                name + of_search,
                joint,
                average,
                kept if None not in kept else [],
                [r.row["memory_bytes"] or 0 for r in reruns],
                [r.row["seconds"] or 0.0 for r in reruns],
                quality,
            )
        )
        seeds = [r.seed for r in reruns]
        plain[label] = {
            "method": contender.method,
            "trial": contender.trial,
            "config": contender.config,
            "test_joint_accuracy": as_dict(mean_interval(joint)),
            "per_seed_test_joint_accuracy": dict(zip(seeds, joint, strict=True)),
        }
        if metric not in OF_GENERATORS or label not in (FLOOR, CEILING):
            scores = [r.score for r in reruns]
            plain[label][f"validation_{metric}"] = as_dict(mean_interval(scores))
        for name, values in quality.items():
            plain[label][f"test_{name}"] = as_dict(mean_interval(values))
            plain[label][f"per_seed_test_{name}"] = dict(zip(seeds, values, strict=True))
    return rows, plain


def cas_curve(record: Record, reruns: Sequence[Rerun]) -> list[float]:
    """CAS over the tasks seen, after each task, on validation data: mean over completed reruns.

    Empty if the method does not generate.
    """
    curves = []
    for rerun in (r for r in reruns if r.row["status"] == "completed"):
        walk = [
            OnTest(*row, record.quality(rerun.trial_id, t))
            for t in range(rerun.row["tasks_learned"])
            if (row := record.row(rerun.trial_id, t))
        ]
        curves.append([x.joint(x.quality["cas"]) for x in walk if "cas" in x.quality])
    return np.mean(curves, 0).tolist() if curves and len({*map(len, curves)}) == 1 else []


def as_dict(interval: Interval) -> dict[str, float | int]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n}


def write_best(
    study: Study,
    directory: Path,
    lineup: Sequence[Contender],
    plain: dict,
    scores: dict,
    opened: bool,
) -> dict[str, Any]:
    """``best.yaml``: the answer, its intervals and where it comes from.

    ``test_opened`` counts how often the test data of this study has been looked at: a search that
    goes on after that is no longer blind to it.
    """
    path = directory / "best.yaml"
    before = yaml.safe_load(path.read_text()) if path.exists() else {}
    winner, default = plain["winner"], plain["default"]
    of_generators = study.metric in OF_GENERATORS and f"test_{study.metric}" in winner
    judged = study.metric if of_generators else "joint_accuracy"
    seeds, others = (one[f"per_seed_test_{judged}"] for one in (winner, default))
    gain = paired_difference(list(seeds.values()), [others[s] for s in seeds])
    best = {
        "study": study.name,
        "method": study.method,
        "benchmark": study.benchmark,
        "scenario": study.scenario,
        "protocol": study.protocol,
        "reported_on": reported_on(study),
        "metric": study.metric,
        "trials": study.trials,
        "trial": winner["trial"],
        "config": winner["config"],
        "test_opened": before.get("test_opened", 0) + opened,
        "judged_by": f"test_{judged}",
        "gain_over_default": as_dict(gain),
        "comparison": plain,
        "candidates": {
            c.label: as_dict(mean_interval(scores[c.label]))
            for c in lineup
            if c.label not in (FLOOR, CEILING)
        },
        "versions": dict(versions()),
        "commit": commit(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    part = directory / ".best.yaml.tmp"
    part.write_text(yaml.safe_dump(best, sort_keys=False))
    part.replace(path)
    return best


def reported_on(study: Study) -> dict[str, Any]:
    """The stream that the results are of: a benchmark, a class order, tasks counted from 0."""
    plan = report_plan(study)
    tasks = len(stream_of(plan).tasks)
    return {
        "benchmark": plan.benchmark,
        "class_order_seed": plan.seed,
        "tasks": [plan.begin, plan.begin + tasks - 1],
    }


def over_default(gain: Mapping[str, float]) -> str:
    """The gain over the default, and whether it is one."""
    points = f"{100 * gain['mean']:+.1f} points over the default"
    if gain["n"] < 2:
        return f"{points} on one seed, which says nothing about chance"
    sure = "" if gain["low"] > 0 else ", so it is not shown to be better"
    half = 50 * (gain["high"] - gain["low"])
    return f"{points} (± {half:.1f}, paired over {gain['n']} seeds){sure}"


def chosen_by(best: Mapping[str, Any]) -> list[str]:
    """What the winner was chosen by, and how far that is from what it reaches on test data; nothing
    where the two are different measures."""
    judged, winner = best["judged_by"], best["comparison"]["winner"]
    if judged.removeprefix("test_") != best["metric"]:
        return []
    chosen, test = best["candidates"][label_of_winner(best)]["mean"], winner[judged]["mean"]
    gap = 100 * (chosen - test)
    apart = f"{abs(gap):.1f}"
    side = f"{apart} points {'above' if gap > 0 else 'below'} test"
    if float(apart) == 0:
        side = "as on test data"
    where = ""
    if best["protocol"] != END_OF_STREAM:
        on = best["reported_on"]
        first, last = on["tasks"]
        where = (
            f" of the stream of the search; reported is {on['benchmark']}, tasks {first} to {last},"
            f" class order {on['class_order_seed']}"
        )
    return [f"It was chosen by {chosen:.1%} on validation data{where}, {side}."]


def in_words(best: dict[str, Any], directory: Path) -> str:
    """The answer of a study in a few lines."""
    gain, judged, compared = best["gain_over_default"], best["judged_by"], best["comparison"]
    what = judged.removeprefix("test_").replace("_", " ").replace("cas", "CAS")
    reached = f"{compared['winner'][judged]['mean']:.1%} {what} on test data"
    curves = [
        f"{label} {' '.join(f'{100 * value:.1f}' for value in one[AFTER_EACH])}"
        for label, one in compared.items()
        if AFTER_EACH in one and (label != "winner" or best["trial"] is not None)
    ]
    lines = [f"CAS after each task (validation): {', '.join(curves)}"] if curves else []
    lines += [
        f"Best: trial {best['trial']}, {reached}, {over_default(gain)}."
        if best["trial"] is not None
        else f"Best: the default, {reached}; nothing the search found beat it on validation data.",
        *chosen_by(best),
        f"Configuration and intervals: {directory / 'best.yaml'}",
    ]
    if best["test_opened"] > 1:
        lines.append(
            f"Test data was opened {best['test_opened']} times in this study: the search went on "
            "after its result was known."
        )
    return "\n".join(lines)
