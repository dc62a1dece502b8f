"""One configuration on its way through a task stream: learn a task, report, save, go on."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

import trainables
from trainables import benchmarks
from trainables.engine import checkpoint, metrics, quality, zero_shot
from trainables.engine.method import Batch, Shape, configure
from trainables.engine.noise import trial_seed
from trainables.engine.packs import Engine, Learned, Seat


class Plan(NamedTuple):
    """What the trials of a study have in common. Plain values, so that it travels as JSON."""

    method: str
    benchmark: str
    scenario: str  # "task", "class" or "domain"
    seed: int  # of the study: class order, validation split and, with its config, a trial's seed
    data_dir: str | None = None
    embedder: str = "identity"
    tasks: int | None = None  # the benchmark's own number if None
    begin: int = 0  # the first task of the stream that is walked
    end: int | None = None  # the one before which the walk ends; the whole stream if None
    attributes: str = "none"
    device: str = "cpu"
    quality: bool = False  # whether generators are measured after every task (engine.quality)

    def benchmark_options(self) -> dict[str, Any]:
        """What ``benchmarks.load`` and ``benchmarks.load_test`` need beside the name."""
        return {
            "scenario": self.scenario,
            "seed": self.seed,
            "data_dir": self.data_dir,
            "embedder": self.embedder,
            "tasks": self.tasks,
            "attributes": self.attributes,
        }


BATCHES = 10  # β of the learning curve's area


@lru_cache(maxsize=4)
def stream_of(plan: Plan) -> benchmarks.Stream:
    """The task stream: training and validation data, never test data. Loaded once a process."""
    whole = loaded(plan.benchmark, **plan.benchmark_options())
    if (plan.begin, plan.end) == (0, None):
        return whole
    return replace(whole, tasks=whole.tasks[plan.begin : plan.end])


# One copy of the data for all methods of a process, and for all parts of a stream.
loaded = lru_cache(maxsize=2)(benchmarks.load)


@lru_cache(maxsize=64)
def batch_of(plan: Plan, t: int, data: Literal["task", "seen"]) -> Batch:
    """The training data of a task, the same object for all lanes of a process."""
    return stream_of(plan).batch(t, data)


@lru_cache(maxsize=16)
def engine_of(plan: Plan, shape: Shape) -> Engine:
    """The engine of a method and shape; keeps its traced steps from trial to trial."""
    problem = stream_of(plan).problem._replace(device=plan.device)
    module = trainables.load(plan.method, plan.embedder)
    if problem.attributes is not None:
        problem = problem._replace(attributes=problem.attributes.to(plan.device))
    widest = {"widest": 1} if getattr(module, "SERIAL", False) else {}
    return Engine(module.build(problem, shape), problem, plan.device, **widest)


class Trial:
    """A lane with its accuracy matrix, between tasks.

    Args:
        plan: of the study, or of its final phase.
        config: a flat configuration of the method.
        seed: of the trial; by default a function of the study's seed and the configuration.

    Raises:
        ValueError: if the configuration is not one of the method.
    """

    def __init__(self, plan: Plan, config: dict[str, Any], seed: int | None = None):
        self.measured, self.config = plan.quality, config
        self.plan = plan = plan._replace(quality=False)  # measured or not: the same data, engine
        self.seed = trial_seed(plan.seed, config) if seed is None else seed
        shape, hyper = configure(trainables.load(plan.method, plan.embedder), config)
        self.stream, self.engine = stream_of(plan), engine_of(plan, shape)
        self.lane = self.engine.start(hyper, self.seed)
        self.rows: list[list[float]] = []  # row i of A, validation accuracy on tasks 0..i
        self.quality: list[dict[str, list[float]]] = []  # with the rows: measure -> tasks 0..i
        self.aware: list[list[float]] = []  # before any training and with the rows: accuracy on
        #                                     all tasks, each among its own classes
        self.zero_shot: list[dict[str, float]] = []  # with the rows
        self.curves: list[list[float]] = []  # one a task begun: accuracy on it, among its own
        #                                      classes, before and after each of its first batches
        self.losses: list[dict[str, float]] = []
        self.widths: list[float] = []  # of its packs, one a task
        self.seconds = 0.0  # its share of what its packs took, and its evaluation

    @property
    def tasks_learned(self) -> int:
        return len(self.rows)

    @property
    def finished(self) -> bool:
        return self.tasks_learned == len(self.stream.tasks)

    def begin_next(self) -> Seat:
        """Take a seat in the engine for the next task. ``end`` has to follow."""
        t, engine = self.tasks_learned, self.engine
        if self.measured and not self.aware:
            self.aware.append(self.told_the_task())
        seat = engine.join(self.lane, batch_of(self.plan, t, engine.method.data), t)
        # With several phases, or the data of several tasks, there is no "after b batches".
        if self.measured and len(seat.program) == 1 and engine.method.data == "task":
            held_out, own = [self.stream.tasks[t].validation], self.stream.own()
            curve = [self.aware[-1][t]]
            self.curves = [*self.curves[:t], curve]

            def after_a_batch(state):
                curve.append(engine.evaluate([state], held_out, own).item())

            seat.watch, seat.watched = after_a_batch, BATCHES
        return seat

    def end(self, learned: Learned) -> str | None:
        """Take over what was learned, and evaluate on all tasks so far.

        Returns:
            Why the trial diverged, or None. A diverged trial has losses of the task, but no row.
        """
        started = time.perf_counter()
        self.losses.append(learned.losses)
        self.widths.append(learned.width)
        if learned.diverged is None:
            self.lane = self.lane._replace(state=learned.state)
            tasks = self.stream.tasks[: self.tasks_learned + 1]
            held_out = [task.validation for task in tasks]
            self.rows.append(self.evaluate(held_out))
        self.seconds += learned.seconds + time.perf_counter() - started
        if learned.diverged is None:
            measured = self.measure(held_out) | self.transfer() if self.measured else {}
            self.quality.append(measured)
        return learned.diverged

    def evaluate(self, splits) -> list[float]:
        """Accuracy on each split, among the logits that compete after the tasks learned so far."""
        rivals = self.stream.rivals(max(len(splits), self.tasks_learned) - 1)
        return self.engine.evaluate([self.lane.state], splits, rivals)[0].tolist()

    def measure(self, splits) -> dict[str, list[float]]:
        """Generator quality on each of these splits, one for each task learned."""
        train = [task.train for task in self.stream.tasks[: len(splits)]]
        masks = self.stream.seen(len(splits) - 1), self.stream.rivals(len(splits) - 1)
        engine, state = self.engine, self.lane.state
        return quality.measure(
            engine.method, state, train, splits, *masks, self.seed, engine.device
        )

    def told_the_task(self) -> list[float]:
        """Accuracy on validation data of all tasks, each among its own classes."""
        every = [task.validation for task in self.stream.tasks]
        return self.engine.evaluate([self.lane.state], every, self.stream.own())[0].tolist()

    def transfer(self) -> dict[str, list[float]]:
        """What is measured on tasks to come as well, after a task.

        Returns:
            "task_accuracy", "zero_shot_accuracy" and "untrained_accuracy": of each task learned,
            among its own classes, now, just before it was learned, and before any training;
            "learning_curve_area" of each of them, where the method learns in one phase; and
            ``metrics.ZERO_SHOT``, of the time after each of these tasks, where the classifier is
            told attributes.
        """
        self.aware.append(self.told_the_task())
        tasks = range(self.tasks_learned)
        if len(self.aware) != self.tasks_learned + 1:
            return {}  # the trial began where nothing of it was measured
        found = {
            "task_accuracy": self.aware[-1][: len(tasks)],
            "zero_shot_accuracy": [self.aware[j][j] for j in tasks],
            "untrained_accuracy": self.aware[0][: len(tasks)],
        }
        if len(self.curves) == len(tasks):
            areas = [float(metrics.learning_curve_area([curve])) for curve in self.curves]
            found["learning_curve_area"] = areas
        told = "classifier" in self.stream.problem.attributes_in
        if not told or self.stream.scenario != "class":
            return found
        every = [task.validation for task in self.stream.tasks]
        predict, state = self.engine.method.predict, self.lane.state
        self.zero_shot.append(
            zero_shot.measure(
                lambda x: predict(state, x.to(self.engine.device)),
                every,
                self.stream.seen(tasks[-1]),
            )
        )
        return found | {name: [one[name] for one in self.zero_shot] for name in metrics.ZERO_SHOT}

    def memory_bytes(self) -> int:
        """What the method carries to the next task: weights and, where it keeps them, examples."""
        size = checkpoint.size_in_bytes(self.engine.method.carried(self.lane.state))
        if self.engine.method.data == "seen":
            tasks = self.stream.tasks[: self.tasks_learned]
            size += sum(checkpoint.size_in_bytes((task.train.x, task.train.y)) for task in tasks)
        return size

    def report(self) -> dict[str, float | int | str]:
        """Flat scalars on the trial so far; metrics on validation data, fractions in [0, 1].

        ``history`` is the whole record of the trial as JSON: rows of A, generator quality and
        losses of every task.
        """
        tasks = self.tasks_learned
        report = {
            "tasks_learned": tasks,
            "seed": self.seed,
            "seconds": self.seconds,
            "memory_bytes": self.memory_bytes(),
            "lanes": round(sum(self.widths) / len(self.widths)) if self.widths else 1,
            "history": json.dumps(
                {"accuracy": self.rows, "quality": self.quality, "losses": self.losses}
            ),
        }
        if tasks:
            held_out = [task.validation for task in self.stream.tasks[:tasks]]
            sizes = [len(split.y) for split in held_out]
            report |= metrics.summary(block(self.rows, tasks), sizes)
            report |= quality.summary(self.quality[-1], held_out)
            report |= {f"acc/task_{j:02d}": a for j, a in enumerate(self.rows[-1])}
            report |= {f"loss/{term}": value for term, value in self.losses[-1].items()}
        return report

    def save(self, path: Path) -> None:
        """Write the trial as it stands, atomically."""
        about = {
            "config": self.config,
            "seed": self.seed,
            "accuracy": self.rows,
            "quality": self.quality,
            "aware": self.aware,
            "zero_shot": self.zero_shot,
            "curves": self.curves,
            "losses": self.losses,
            "widths": self.widths,
            "seconds": self.seconds,
        }
        checkpoint.save(path, self.lane.state, about)

    def restore(self, path: Path) -> None:
        """Continue where ``save`` left off, with exactly the numbers that an unbroken run has.

        Raises:
            CheckpointError: if the file is missing, damaged, or of another trial.
        """
        state, about = checkpoint.load(path, self.lane.state)
        if about["config"] != self.config or about["seed"] != self.seed:
            raise checkpoint.CheckpointError(
                f"checkpoint {path} is of another trial: {about['config']}, seed {about['seed']}"
            )
        self.lane = self.lane._replace(state=state)
        self.rows, self.losses = about["accuracy"], about["losses"]
        self.quality = about.get("quality", [{} for _ in self.rows])  # older files have none
        self.aware, self.zero_shot = about.get("aware", []), about.get("zero_shot", [])
        self.curves = about.get("curves", [])
        self.seconds, self.widths = about["seconds"], about["widths"]


def block(rows: Sequence[Sequence[float]], tasks: int) -> np.ndarray:
    """The leading ``(tasks, tasks)`` block of A from its rows; NaN above the diagonal."""
    a = np.full((tasks, tasks), np.nan)
    for i, row in enumerate(rows[:tasks]):
        a[i, : i + 1] = row
    return a
