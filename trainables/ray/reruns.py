"""Reruns: configurations trained again on fresh seeds, outside the search.

A search's best score is the luckiest of many; what is said of a configuration is therefore measured
on seeds that no search trial had, the same ones for all that are compared.
"""

import contextlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, cast

import ray
from ray.exceptions import RayError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from trainables.engine.noise import seed_of
from trainables.ray.engine import describe
from trainables.ray.engines import Engines
from trainables.ray.names import OF_GENERATORS
from trainables.ray.recorder import enter_tasks
from trainables.ray.settings import StudyError
from trainables.ray.study import Session, columns, plan_of
from trainables.ray.trial import Plan, stream_of

LANES = 16  # an engine, at least: no suggestion waits for the results


class Contender(NamedTuple):
    """A configuration that is trained again on fresh seeds."""

    label: str
    method: str
    config: dict[str, Any]
    trial: int | None = None  # of the search, if it comes from there

    @property
    def key(self) -> tuple[str, str]:
        return self.method, json.dumps(self.config, sort_keys=True)


class Rerun(NamedTuple):
    """One contender on one fresh seed, trained."""

    contender: Contender
    seed: int
    trial_id: int
    score: float  # on validation data
    row: dict[str, Any]  # of trials.parquet


def fresh_seeds(role: str, study_seed: int, count: int) -> list[int]:
    """Seeds of a phase, the same for every contender, so that they can be paired.

    No other phase and no search trial has them.
    """
    return [seed_of(role, study_seed, i) for i in range(count)]


def states(directory: Path, role: str) -> Path:
    """The folder in which the reruns of a phase save themselves after every task."""
    return directory.absolute() / "checkpoints" / role


def config_of(
    session: Session, contender: Contender, seed: int, trial_id: int, role: str, plan: Plan
) -> dict[str, Any]:
    """What an engine needs to know of a rerun (``EngineActor.learn``).

    What it generates is measured where the study's metric needs it.
    """
    quality = session.study.metric in OF_GENERATORS
    plan = plan._replace(method=contender.method, quality=quality)
    return {
        "number": trial_id,
        "hyper": contender.config,
        "seed": seed,
        "plan": plan._asdict(),
        "checkpoints": str(states(session.directory, role)),
    }


def train(
    session: Session,
    lineup: Sequence[Contender],
    role: str,
    seeds: Sequence[int],
    first_id: int,
    plan: Plan | None = None,
    settled: Callable[[dict[str, Any]], bool] = lambda row: True,
    config_for: Callable[..., dict[str, Any]] = config_of,
) -> list[Rerun]:
    """Every contender on every seed; a seed on which it diverges counts as 0.

    Args:
        session: the study.
        lineup: who is trained.
        role: of the reruns in the record, which also names the phase.
        seeds: fresh ones.
        first_id: trial_id of the first rerun of this role.
        plan: of the stream to walk; that of the search if None.
        settled: whether a row that an earlier run left in the record needs no training any more.
        config_for: makes what an engine is told of a rerun, as ``config_of`` does.

    Raises:
        StudyError: if a state cannot be saved, to a full disk say.
    """
    study, directory, record, engines, *_ = session
    plan = plan or plan_of(study)
    done, jobs = [], []
    known = rows_of(record.trials(), role)
    next_id = max((row["trial_id"] for row in known.values()), default=first_id - 1) + 1
    unlike = {c.key: c for c in reversed(lineup)}.values()
    for contender in unlike:
        for seed in seeds:
            row = known.get((*contender.key, seed))
            if row and settled(row):
                done.append(Rerun(contender, seed, row["trial_id"], row["score"] or 0.0, row))
                continue
            jobs.append((contender, seed, row["trial_id"] if row else next_id))
            next_id += row is None

    examples = [len(task.validation.y) for task in stream_of(plan).tasks]
    title = f"{role} phase: {len(unlike)} configurations × {len(seeds)} fresh seeds"
    walks = {
        trial_id: config_for(session, contender, seed, trial_id, role, plan)
        for contender, seed, trial_id in jobs
    }
    by_id = {trial_id: (contender, seed) for contender, seed, trial_id in jobs}
    for trial_id, report in walked(engines, walks, role, title, session.console, session.level):
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
            role=role,
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
            **columns(study)
            | {"method": contender.method, "benchmark": plan.benchmark}
            | {"class_order_seed": plan.seed},
        )
        row = next(r for r in record.trials() if r["trial_id"] == trial_id)
        done.append(Rerun(contender, seed, trial_id, row["score"] or 0.0, row))
    return done


def rows_of(
    rows: Sequence[dict[str, Any]], role: str
) -> dict[tuple[str, str, int], dict[str, Any]]:
    """The rows of one role, by a contender's key and the seed."""
    return {
        (row["method"], json.dumps(row["config"], sort_keys=True), row["seed"]): row
        for row in rows
        if row["role"] == role
    }


def walked(
    engines: Engines,
    walks: dict[int, dict[str, Any]],
    role: str,
    title: str,
    console: Console,
    level: str,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Walk the stream with every configuration: trial id and last report, as they end."""
    waiting, under_way = deque(walks.items()), {}
    lanes = max(engines.lanes, LANES)
    free = deque(actor for _ in range(lanes) for actor in engines.actors)
    with progress(title, len(walks), console, level) as advance:
        while waiting or under_way:
            while waiting and free:
                (trial_id, config), actor = waiting.popleft(), free.popleft()
                future = actor.walk.options(name=f"{role} trial {trial_id}").remote(config)
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
