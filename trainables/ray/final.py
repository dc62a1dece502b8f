"""The final phase: fresh seeds for the best few, a winner by validation, then the test set, once.

A search's best score is the luckiest of many. So the best configurations and the default are
trained again on seeds that no search trial had; the winner is the one with the best mean on
validation data; and only then is test data opened, for the winner, the default, the floor
(``sequential``) and the ceiling (``joint``).
"""

import contextlib
import itertools
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import ray
import yaml
from ray.exceptions import RayError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import search_spaces
from analysis import tables
from analysis.schema import FIRST_FINAL
from analysis.statistics import Interval, mean_interval, paired_difference
from analysis.store import Record
from trainables.engine.noise import seed_of
from trainables.ray.engine import describe
from trainables.ray.engines import Engines
from trainables.ray.names import OF_GENERATORS
from trainables.ray.recorder import checkpoint_file, enter_tasks
from trainables.ray.settings import Study, StudyError
from trainables.ray.study import PROTOCOL, Session, columns, commit, plan_of, versions
from trainables.ray.trial import stream_of

FLOOR, CEILING = "sequential", "joint"
AFTER_EACH = "validation_cas_after_each_task"
LANES = 16  # an engine, at least: no suggestion waits for the results


class NothingCompleted(Exception):
    """No trial of a search came to the end of the stream."""


class Contender(NamedTuple):
    """A configuration that is trained again on fresh seeds."""

    label: str
    method: str
    config: dict[str, Any]
    trial: int | None = None  # of the search, if it comes from there

    @property
    def key(self) -> tuple[str, str]:
        return self.method, json.dumps(self.config, sort_keys=True)


class OnTest(NamedTuple):
    """What a rerun reaches on test data after the last task."""

    accuracy: list[float]  # on each task
    examples: list[int]  # of each task
    quality: dict[str, list[float]]  # measure -> one a task

    def joint(self, row: Sequence[float]) -> float:
        """The mean of a row in which every example counts once."""
        return float(np.average(row, weights=self.examples))


class Rerun(NamedTuple):
    """One contender on one fresh seed, trained."""

    contender: Contender
    seed: int
    trial_id: int
    score: float  # on validation data
    row: dict[str, Any]  # of trials.parquet


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
    for name in (FLOOR, CEILING):
        found.append(Contender(name, name, search_spaces.load(name).DEFAULT))
    return found


def fresh_seeds(study: Study) -> list[int]:
    """Seeds of the final phase, the same for every contender, so that they can be paired."""
    return [seed_of("final", study.seed, i) for i in range(study.final_seeds)]


def state_file(directory: Path, trial_id: int) -> Path:
    """Where a rerun's last state waits for the test data."""
    return checkpoint_file(directory.absolute() / "checkpoints" / "final", trial_id)


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
    done = train(session, lineup)
    scores = {c.label: [r.score for r in done if r.contender.key == c.key] for c in lineup}
    tuned = [c for c in lineup if c.label not in (FLOOR, CEILING)]
    winner = max(tuned, key=lambda c: np.mean(scores[c.label]))
    shown = {c.label: c for c in lineup if c.label in ("default", FLOOR, CEILING)}
    shown = {k: c for k, c in shown.items() if k == "default" or c.key != lineup[0].key}
    shown = {"winner": winner, **shown}
    test, opened = open_test(session, shown, done)
    table, plain = comparison(shown, done, test, study.metric)
    for label in ("winner", "default"):
        if curve := cas_curve(record, [r for r in done if r.contender.key == shown[label].key]):
            plain[label][AFTER_EACH] = curve
    best = write_best(study, directory, lineup, plain, scores, opened=bool(opened))
    return table, in_words(best, directory)


def train(session: Session, lineup: Sequence[Contender]) -> list[Rerun]:
    """Every contender on every fresh seed; a seed on which it diverges counts as 0.

    Raises:
        StudyError: if a state cannot be saved, to a full disk say.
    """
    study, directory, record, engines, *_ = session
    done, jobs = [], []
    known = {
        (row["method"], json.dumps(row["config"], sort_keys=True), row["seed"]): row
        for row in record.trials()
        if row["role"] == "final"
    }
    next_id = max((row["trial_id"] for row in known.values()), default=FIRST_FINAL - 1) + 1
    for contender in {c.key: c for c in reversed(lineup)}.values():
        for seed in fresh_seeds(study):
            row = known.get((*contender.key, seed))
            if row and is_known(record, row, directory):
                done.append(Rerun(contender, seed, row["trial_id"], row["score"] or 0.0, row))
                continue
            jobs.append((contender, seed, row["trial_id"] if row else next_id))
            next_id += row is None

    examples = [len(task.validation.y) for task in stream_of(plan_of(study)).tasks]
    title = f"final phase: {len(lineup)} configurations × {study.final_seeds} fresh seeds"
    walks = {
        trial_id: config_of(session, contender, seed, trial_id)
        for contender, seed, trial_id in jobs
    }
    by_id = {trial_id: (contender, seed) for contender, seed, trial_id in jobs}
    for trial_id, report in walked(engines, walks, title, session.console, session.level):
        contender, seed = by_id[trial_id]
        if "unsaved" in report:  # no fault of the contender's
            raise StudyError(f"{report['unsaved']}: free space, then --resume {directory}")
        if "unkept" in report and session.level != "quiet":
            line = f"{report['unkept']}: samples of {contender.label} are missing, nothing else is"
            session.console.print(line, soft_wrap=True, markup=False)
        report = {"seed": seed} | report
        enter_tasks(record, trial_id, report, examples)
        failure = report.get("failure")
        record.finish(
            trial_id,
            contender.config,
            role="final",
            label=contender.label,
            seed=seed,
            status="failed" if failure else "completed",
            reason=failure,
            # Floor and ceiling have no score where the metric is of generators.
            score=None if failure else report.get(study.metric),
            metric=study.metric,
            tasks_learned=report["tasks_learned"],
            seconds=report.get("seconds"),
            memory_bytes=report.get("memory_bytes"),
            lanes=report.get("lanes", 1),
            started=report.get("started"),
            finished=datetime.now(UTC),
            **columns(study) | {"method": contender.method},
        )
        row = next(r for r in record.trials() if r["trial_id"] == trial_id)
        done.append(Rerun(contender, seed, trial_id, row["score"] or 0.0, row))
    return done


def is_known(record: Record, row: dict[str, Any], directory: Path) -> bool:
    """Whether an earlier run of the phase leaves nothing to train for this row."""
    trial_id = row["trial_id"]
    tested = record.row(trial_id, row["tasks_learned"] - 1, "test")
    return bool(row["status"] == "failed" or tested or state_file(directory, trial_id).exists())


def config_of(session: Session, contender: Contender, seed: int, trial_id: int) -> dict[str, Any]:
    """What an engine needs to know of a rerun (``EngineActor.learn``)."""
    study = session.study
    plan = plan_of(study)._replace(method=contender.method, quality=True)
    kept = {}
    if contender.method == study.method and seed == fresh_seeds(study)[0]:
        file = session.directory.absolute() / "generated" / f"{trial_id}.safetensors"
        kept = {"generated": {"file": str(file), "label": contender.label}}
    return kept | {
        "number": trial_id,
        "hyper": contender.config,
        "seed": seed,
        "plan": plan._asdict(),
        "checkpoints": str(state_file(session.directory, trial_id).parent),
    }


def walked(
    engines: Engines, walks: dict[int, dict[str, Any]], title: str, console: Console, level: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Walk the stream with every configuration: trial id and last report, as they end."""
    waiting, under_way = deque(walks.items()), {}
    lanes = max(engines.lanes, LANES)
    free = deque(actor for _ in range(lanes) for actor in engines.actors)
    with progress(title, len(walks), console, level) as advance:
        while waiting or under_way:
            while waiting and free:
                (trial_id, config), actor = waiting.popleft(), free.popleft()
                future = actor.walk.options(name=f"final trial {trial_id}").remote(config)
                under_way[future] = trial_id, actor
            (future,), _ = ray.wait(list(under_way))
            trial_id, actor = under_way.pop(future)
            free.append(actor)
            try:
                report = cast(Any, ray.get(future))
            except RayError as error:
                report = {"failure": describe(error), "tasks_learned": 0}
            advance()
            yield trial_id, report


def open_test(
    session: Session, shown: dict[str, Contender], done: Sequence[Rerun]
) -> tuple[dict[int, OnTest], int]:
    """Results on test data, by trial_id, of the reruns to be shown.

    What was opened before is read from the record; also returns how many reruns were evaluated now.
    """
    record, actors = session.record, session.engines.actors
    keys = {c.key for c in shown.values()}
    chosen = [r for r in done if r.contender.key in keys and r.row["status"] == "completed"]
    last = len(stream_of(plan_of(session.study)).tasks) - 1
    known = {
        r.trial_id: OnTest(*row, record.quality(r.trial_id, last, "test"))
        for r in chosen
        if (row := record.row(r.trial_id, last, "test"))
    }
    unopened = [r for r in chosen if r.trial_id not in known]
    futures = [
        actor.test_row.remote(config_of(session, r.contender, r.seed, r.trial_id))
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

    A seed on which a contender diverged has accuracy 0, CAS 0 where its method generates, and no
    forgetting. A score that a method cannot have is left out.
    """
    rows, plain = [], {}
    on_test = [(r.contender.method, test[r.trial_id]) for r in done if r.trial_id in test]
    generate = {method for method, found in on_test if "cas" in found.quality}
    generate -= {method for method, found in on_test if "cas" not in found.quality}
    for label, contender in shown.items():
        reruns = sorted((r for r in done if r.contender.key == contender.key), key=lambda r: r.seed)
        ended = [test.get(r.trial_id) for r in reruns]
        joint = [0.0 if x is None else x.joint(x.accuracy) for x in ended]
        average = [0.0 if x is None else float(np.mean(x.accuracy)) for x in ended]
        cas = []
        if contender.method in generate:
            cas = [0.0 if x is None else x.joint(x.quality["cas"]) for x in ended]
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
                cas,
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
        if cas:
            plain[label]["test_cas"] = as_dict(mean_interval(cas))
            plain[label]["per_seed_test_cas"] = dict(zip(seeds, cas, strict=True))
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
    judged = "cas" if study.metric == "cas" and "test_cas" in winner else "joint_accuracy"
    seeds, others = (one[f"per_seed_test_{judged}"] for one in (winner, default))
    gain = paired_difference(list(seeds.values()), [others[s] for s in seeds])
    best = {
        "study": study.name,
        "method": study.method,
        "benchmark": study.benchmark,
        "scenario": study.scenario,
        "protocol": PROTOCOL,
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


def over_default(gain: Mapping[str, float]) -> str:
    """The gain over the default, and whether it is one."""
    points = f"{100 * gain['mean']:+.1f} points over the default"
    if gain["n"] < 2:
        return f"{points} on one seed, which says nothing about chance"
    sure = "" if gain["low"] > 0 else ", so it is not shown to be better"
    half = 50 * (gain["high"] - gain["low"])
    return f"{points} (± {half:.1f}, paired over {gain['n']} seeds){sure}"


def in_words(best: dict[str, Any], directory: Path) -> str:
    """The answer of a study in a few lines."""
    gain, judged, compared = best["gain_over_default"], best["judged_by"], best["comparison"]
    what = {"test_joint_accuracy": "joint accuracy", "test_cas": "CAS"}[judged]
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
        f"Configuration and intervals: {directory / 'best.yaml'}",
    ]
    if best["test_opened"] > 1:
        lines.append(
            f"Test data was opened {best['test_opened']} times in this study: the search went on "
            "after its result was known."
        )
    return "\n".join(lines)


@contextlib.contextmanager
def progress(title: str, total: int, console: Console, level: str) -> Iterator[Callable[[], None]]:
    """A bar, or a line where there is no terminal; calling what it yields advances the bar."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=level == "quiet" or not console.is_terminal,
    )
    if total and level != "quiet" and not console.is_terminal:
        console.print(title, soft_wrap=True, highlight=False)
    with bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)
