"""The search of one study: searcher, scheduler, record and screen around Ray Tune."""

import contextlib
import functools
import importlib.metadata
import logging
import platform
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ray import tune
from ray.tune import TuneError
from rich.console import Console

import trainables
from analysis.log import RecordError
from analysis.store import Record
from trainables.benchmarks import Split, Stream
from trainables.engine import metrics, quality
from trainables.engine.method import Problem, configure
from trainables.ray import settings
from trainables.ray.cluster import connected
from trainables.ray.engines import Engines, measured_lanes, most_lanes, placed, started
from trainables.ray.names import FIRST_K_TASKS, OF_GENERATORS, OTHER_STREAM
from trainables.ray.recorder import Recorder
from trainables.ray.scheduler import make_scheduler
from trainables.ray.screen import Screen
from trainables.ray.searcher import StudySearcher
from trainables.ray.seats import seated
from trainables.ray.settings import Study, StudyError
from trainables.ray.tensorboard import TensorBoard
from trainables.ray.trial import Plan, block, stream_of

RETRIES = 1  # of a trial whose engine died more often than a task outlives


class Session(NamedTuple):
    """A study while it runs."""

    study: Study
    directory: Path
    record: Record
    engines: Engines
    console: Console  # where to show progress
    level: str = "normal"  # as in ``Screen``


class Place(NamedTuple):
    """Where to train, as it was typed; None is for us to find out."""

    address: str | None = None  # of a running cluster
    engines: int | None = None
    gpus: float | None = None  # an engine
    lanes: int | str | None = None  # as in ``choose_lanes``


@contextlib.contextmanager
def on_engines(
    study: Study, directory: Path, record: Record, place: Place, console: Console, level: str
) -> Iterator[tuple[Session, str | None]]:
    """Engines for as long as a study needs them: its session, and the address of Ray's web page.

    The study remembers how many lanes they have.

    Raises:
        ClusterError: if there is no Ray or no engine.
        KeyboardInterrupt: when the process is told to terminate.
    """

    def say(line: str) -> None:
        if level != "quiet":
            console.print(line, soft_wrap=True, markup=False)

    say("starting Ray ...")
    with connected(place.address, place.engines) as cluster:
        signal.signal(signal.SIGTERM, interrupt)  # Ray has set its own, which saves nothing
        count, gpus, note = placed(cluster, place.engines, place.gpus)
        if note:
            say(note)
        with started(plan_of(study), cluster, count, gpus, say) as actors:
            study, lanes = choose_lanes(study, actors, place.lanes, say)
            settings.write(directory, study)
            engines = Engines(actors, lanes)
            yield Session(study, directory, record, engines, console, level), cluster.dashboard


def interrupt(*_):
    raise KeyboardInterrupt


def search(session: Session, dashboard: str | None, deadline: float | None = None) -> None:
    """Run what is left of the study's trials.

    Args:
        session: the study, its record and its engines.
        dashboard: address of Ray's web page, if there is one.
        deadline: no trial starts after this time (``time.monotonic``); those that run finish.

    Raises:
        StudyError: if the journal is damaged or holds another study.
    """
    study, directory, record, engines, console, level = session
    plan, stream = plan_of(study), stream_of_study(study)
    tasks = len(stream.tasks)
    checkpoints = str((directory / "checkpoints").absolute())
    measured = plan._replace(quality=study.metric in OF_GENERATORS)
    try:
        searcher = StudySearcher(
            study.space(),
            study.metric,
            directory=directory,
            study_name=study.name,
            tasks=tasks,
            total=study.trials,
            rung=rung_of(study),
            sampler=study.sampler,
            seed=study.seed,
            first=[study.default()],
            batch=study.batch,
            plan={"plan": measured._asdict(), "checkpoints": checkpoints},
            deadline=deadline,
        )
    except ValueError as error:  # a damaged journal
        raise StudyError(" ".join(str(error).split())) from error
    finished = [row for row in record.trials() if row["role"] == "search"]
    held_out = [task.validation for task in stream.tasks]
    for row in finished:
        searcher.settle(row, walked(record, row["trial_id"], held_out))
    scheduler = make_scheduler(
        study.scheduler,
        metric=rung_of(study),
        tasks=tasks,
        seed=study.seed,
        history=searcher.history(),
        batch=study.batch,
    )
    searcher.reasons = scheduler.reasons
    footer = [
        f"study {directory}",
        *([f"dashboard http://{dashboard}"] if dashboard else []),
        f"curves tensorboard --logdir {directory / 'tensorboard'}",
    ]
    title = f"{study.method} on {study.benchmark}, {study.scenario}-incremental, {tasks} tasks"
    screen = Screen(console, title, footer, study.trials, tasks, study.metric, finished, level)
    recorder = Recorder(
        record,
        columns(study),
        [len(split.y) for split in held_out],
        study.metric,
        scheduler.reasons.get,
    )
    trainable = type(study.method, (tune.Trainable,), {})  # a name: trials have seats, no actors
    logging.getLogger("ray.tune").setLevel(logging.ERROR)  # it misses its own result files
    scratch = tempfile.mkdtemp(prefix="lgm-search-")  # what Tune writes; nothing needs it
    try:
        with screen, seated(engines):
            tune.Tuner(
                trainable,
                tune_config=tune.TuneConfig(
                    search_alg=searcher,
                    scheduler=scheduler,
                    num_samples=-1,
                    max_concurrent_trials=len(engines.actors) * engines.lanes,
                    trial_name_creator=lambda trial: f"trial_{trial.config['number']:06d}",
                    trial_dirname_creator=lambda trial: f"trial_{trial.config['number']:06d}",
                ),
                run_config=tune.RunConfig(
                    name=study.name,
                    storage_path=scratch,
                    verbose=0,
                    # A trial saves itself; a copy of Tune's at its end would be thrown away.
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    failure_config=tune.FailureConfig(max_failures=RETRIES),
                    callbacks=[recorder, screen, TensorBoard(directory / "tensorboard")],
                ),
            ).fit()
    except TuneError as error:  # what a callback raised, such as a full disk
        raise next((e for e in causes(error) if isinstance(e, RecordError)), error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def rung_of(study: Study) -> str:
    """What trials are compared by before the end: what they retain, or the quality of what they
    generate where that is searched for."""
    return study.metric if study.metric in OF_GENERATORS else "retained_accuracy"


def walked(record: Record, trial_id: int, held_out: Sequence[Split]) -> list[dict[str, float]]:
    """What a trial in the record reported after task 1, 2, ...

    Args:
        held_out: validation data of each task of the stream.
    """
    rows, sizes = record.rows(trial_id), [len(split.y) for split in held_out]
    return [
        metrics.summary(block(rows, k), sizes[:k])
        | quality.summary(record.quality(trial_id, k - 1), held_out[:k])
        for k in range(1, len(rows) + 1)
    ]


def choose_lanes(
    study: Study, actors: Sequence[Any], asked: int | str | None, say: Callable[[str], None]
) -> tuple[Study, int]:
    """The lanes of an engine, and the study that remembers them.

    Args:
        actors: the engines.
        asked: a number, "auto" to measure again, or None: what the study has, or a measurement.
        say: told what was chosen and why.
    """
    if getattr(trainables.load(study.method), "SERIAL", False):
        say(f"{study.method} cannot be fused: an engine trains one trial at a time")
        return study, 1
    if isinstance(asked, int):
        lanes = asked
    elif study.lanes is None or asked == "auto":
        say("measuring how wide packs should be ...")
        most = most_lanes(study.trials, len(actors))
        lanes, why = measured_lanes(actors, study.default(), most)
        say(f"{lanes} lanes an engine (at most {most} for {study.trials} trials): {why}")
    else:
        lanes = study.lanes
    return study._replace(lanes=lanes), lanes


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def plan_of(study: Study) -> Plan:
    """What the study's trials need to know of it, those that search and choose."""
    fields = (
        "method", "benchmark", "scenario", "seed", "data_dir", "embedder", "tasks", "attributes",
    )  # fmt: skip
    plan = Plan(**{name: getattr(study, name) for name in fields})
    return plan._replace(end=study.tuning_tasks) if study.protocol == FIRST_K_TASKS else plan


def report_plan(study: Study) -> Plan:
    """The same for the trials that are reported, which is where the protocols differ."""
    plan = plan_of(study)
    if study.protocol == FIRST_K_TASKS:
        return plan._replace(begin=study.tuning_tasks, end=None)
    if study.protocol == OTHER_STREAM and study.report_on:
        return plan._replace(benchmark=study.report_on)
    return plan._replace(seed=study.seed + 1) if study.protocol == OTHER_STREAM else plan


def stream_of_study(study: Study) -> Stream:
    """The task stream, loaded once in this process.

    Raises:
        ValueError: for an unknown benchmark or embedder, or data that is missing or damaged.
    """
    return stream_of(plan_of(study))


def check(study: Study, problem: Problem) -> None:
    """Whether the method can be built for the benchmark, and has what the metric measures.

    Raises:
        ValueError: if not, in one line.
    """
    shape, _ = configure(study.module, study.default())
    method = study.module.build(problem, shape)
    if "generator" in problem.attributes_in and method.sample is None:
        raise ValueError(
            f"--attributes {study.attributes} tells a generator, which {study.method} does not "
            "have: use 'classifier' or 'none'"
        )
    needed = OF_GENERATORS.get(study.metric)
    if needed is not None and getattr(method, needed) is None:
        does = {"sample": "generates", "reconstruct": "reconstructs"}[needed]
        raise ValueError(
            f"the metric {study.metric} is of a method that {does}, which {study.method} does not: "
            "choose another --metric or --method"
        )
    check_protocol(study)


def check_protocol(study: Study) -> None:
    """Whether there is a stream to report, and what is found on the one fits the other.

    Raises:
        ValueError: if not, in one line; and as ``stream_of_study``.
    """
    whole = plan_of(study)._replace(end=None)
    tasks = len(stream_of(whole).tasks)
    if study.protocol == FIRST_K_TASKS and study.tuning_tasks >= tasks:
        raise ValueError(
            f"{study.benchmark} has {tasks} tasks: expected fewer to tune on (--tuning-tasks) than "
            f"that, got {study.tuning_tasks}"
        )
    stream_of(report_plan(study))


def rungs(study: Study, tasks: int) -> str:
    """Where trials may be stopped, in words."""
    scheduler = make_scheduler(study.scheduler, metric=rung_of(study), tasks=tasks)
    first = sorted(scheduler.brackets[0])
    return f"task {' and '.join(map(str, first))}" if first else "no task"


def columns(study: Study) -> dict[str, Any]:
    """The columns that all rows of a study's record share."""
    return {
        "method": study.method,
        "benchmark": study.benchmark,
        "scenario": study.scenario,
        "protocol": study.protocol,
        "embedder": study.embedder,
        "attributes": study.attributes,
        "class_order_seed": study.seed,
        "versions": versions(),
        "commit": commit(),
    }


@functools.cache
def versions() -> Mapping[str, str]:
    """Versions of what a trial's numbers depend on."""
    packages = ("lgm-search", "torch", "numpy", "ray", "optuna")
    found = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


@functools.cache
def commit() -> str | None:
    """The checkout's commit, or None outside one."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
