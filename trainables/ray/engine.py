"""An engine as a Ray actor: one process that trains the lanes of many trials in packs.

A call learns one task of one trial and returns its report. Calls come in whenever Tune makes them;
a thread of their own trains whatever lanes are there. A trial saves itself after every task. If
the process dies, Ray starts it again and repeats the calls that were under way, and a trial that
the new process does not know goes on from its file.
"""

import asyncio
import contextlib
import ctypes
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import ray
import torch
from ray._raylet import setproctitle  # pyright: ignore[reportAttributeAccessIssue]

from trainables import benchmarks
from trainables.engine.checkpoint import CheckpointError
from trainables.engine.packs import Engine, Seat
from trainables.engine.widths import Cost, measure
from trainables.ray import generated
from trainables.ray.recorder import checkpoint_file
from trainables.ray.trial import Plan, Trial, batch_of, stream_of

log = logging.getLogger(__name__)

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


class Job(NamedTuple):
    """A trial in a seat, and who waits for its report."""

    number: int
    trial: Trial
    file: Path
    answers: list[Future]
    generated: dict[str, str] | None  # arguments of ``generated.keep``, if it is to be called


class EngineActor:
    """Data of a benchmark and the engines of this process, one for each method and shape.

    Args:
        plan: of the study, as plain values.
        threads: that a step may use on the CPU.

    Raises:
        RuntimeError: if it was given a GPU that PyTorch cannot use.
    """

    def __init__(self, plan: dict[str, Any], threads: int = 1):
        keep_freed_memory()
        self.plan = on_device(Plan(**plan))
        stream_of(self.plan)  # now, so that no trial waits for it
        self.trials: dict[int, Trial] = {}  # between their tasks or inside one, by number
        self.seats: dict[Seat, Job] = {}
        self.orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._work, args=[threads], name="packs", daemon=True).start()

    async def ready(self) -> None:
        """Answers once the engine can train."""

    async def learn(self, config: dict[str, Any]) -> dict[str, Any]:
        """Learn the next task of a trial.

        Args:
            config: of Tune's trial: ``number`` in the study, ``hyper`` (the method's
                configuration), ``plan``, ``checkpoints`` (a folder) and, if it is not the one that
                follows from the configuration, ``seed``; and ``generated`` (``file``, ``label``) if
                what it generates is to be kept.

        Returns:
            The trial's report. One that fails or diverges ends with ``failure`` and the reason; one
            that had to be restored reports what it had learned before it goes on, since that report
            may have been lost.
        """
        return await self._order(self._learn, config)

    async def walk(self, config: dict[str, Any]) -> dict[str, Any]:
        """Learn all tasks of a trial; its last state stays in its file."""
        unkept, started = {}, datetime.now(UTC)
        while not (report := await self.learn(config) | unkept)["done"]:  # the first reason
            unkept = {"unkept": report["unkept"]} if "unkept" in report else {}
        return report | {"started": started}

    async def measure(self, config: dict[str, Any], width: int) -> Cost:
        """What a lane of this configuration costs in packs of this width, in its second task."""
        return await self._order(self._measure, config, width)

    async def leave(self, number: int) -> None:
        """Forget a trial that was stopped."""
        await self._order(self._forget, number)

    async def quit(self) -> None:
        """Answer every call that is under way: nobody waits for it any more."""
        await self._order(self._quit)

    async def test_row(
        self, config: dict[str, Any]
    ) -> tuple[list[float], list[int], dict[str, list[float]]]:
        """The last row of A on test data of a trial that has learned all tasks, the examples of
        each task, and generator quality."""
        return await self._order(self._test_row, config)

    def __repr__(self) -> str:
        return f"engine of {self.plan.method} on {self.plan.device}"

    def _order(self, function: Callable, *arguments) -> asyncio.Future:
        """Let the training thread call ``function(answer, *arguments)``."""
        answer = Future()

        def order():
            try:
                function(answer, *arguments)
            except InvalidStateError:  # cancelled: nobody waits for the answer
                pass
            except Exception as error:
                answer.set_exception(error)

        self.orders.put(order)
        return asyncio.wrap_future(answer)

    # ---- in the training thread ------------------------------------------------------------------

    def _work(self, threads: int) -> None:
        """Take orders and train, for ever."""
        torch.set_num_threads(threads)  # of this thread
        while True:
            with contextlib.suppress(queue.Empty):
                while True:
                    self.orders.get(block=not self.seats)()
            for engine in dict.fromkeys(job.trial.engine for job in self.seats.values()):
                self._advance(engine)

    def _advance(self, engine: Engine) -> None:
        try:
            ended = engine.advance()
        except Exception as error:  # which lane's fault it is cannot be told
            ended = []
            for seat in engine.stepping:
                engine.leave(seat)
                self._answer(self.seats.pop(seat), describe(error))
        for seat, learned in ended:
            job = self.seats.pop(seat)
            try:
                failure = job.trial.end(learned)
            except Exception as error:
                failure = describe(error)
            self._answer(job, failure)

    def _learn(self, answer: Future, config: dict[str, Any]) -> None:
        number = config["number"]
        file = checkpoint_file(config["checkpoints"], number)
        try:
            trial, restored = self.trials.get(number), False
            if trial is None:
                plan = on_device(Plan(**config["plan"]))
                trial = Trial(plan, config["hyper"], config.get("seed"))
                restored = restore(trial, file)
                self.trials[number] = trial
        except Exception as error:
            report = {"failure": describe(error), "tasks_learned": 0, "done": True}
            answer.set_result(report)
            return
        for job in self.seats.values():
            if job.trial is trial:  # Ray repeats a call whose answer it has not heard
                job.answers.append(answer)
                return
        job = Job(number, trial, file, [answer], config.get("generated"))
        if restored:
            self._answer(job, None)
            return
        try:
            self.seats[trial.begin_next()] = job
        except Exception as error:
            self._answer(job, describe(error))

    def _answer(self, job: Job, failure: str | None) -> None:
        """Report what a trial has learned, or why it ends here."""
        try:
            report = self._report(job, failure)
        except Exception as error:
            self.trials.pop(job.number, None)
            report = {"failure": describe(error), "tasks_learned": 0, "done": True}
        for answer in job.answers:
            with contextlib.suppress(InvalidStateError):  # cancelled: nobody waits for it
                answer.set_result(report)
        self._show()

    def _report(self, job: Job, failure: str | None) -> dict[str, Any]:
        more, trial = {}, job.trial
        try:  # before the trial is saved: one that goes on from its file has kept its samples
            if failure is None and job.generated:
                generated.keep(trial, **job.generated)
        except CheckpointError as error:
            more["unkept"] = str(error)
        try:
            if failure is None:
                trial.save(job.file)
        except CheckpointError as error:  # no fault of the trial's
            more["unsaved"] = str(error)
        if trial.engine.narrowed:
            widest = trial.engine.widest
            more["narrowed"] = f"out of memory: packs are at most {widest} lanes wide from now on"
        if failure is not None:
            more["failure"] = failure
        done = failure is not None or trial.finished
        if done:
            del self.trials[job.number]
        return trial.report() | more | {"done": done}

    def _forget(self, answer: Future, number: int) -> None:
        trial = self.trials.pop(number, None)
        for seat in [seat for seat, job in self.seats.items() if job.trial is trial]:
            job = self.seats.pop(seat)
            job.trial.engine.leave(seat)
            for waiting in job.answers:
                waiting.cancel()
        answer.set_result(None)

    def _quit(self, answer: Future) -> None:
        for seat, job in self.seats.items():
            job.trial.engine.leave(seat)
            for waiting in job.answers:
                waiting.set_result({"failure": "the study ended", "tasks_learned": 0, "done": True})
        self.seats.clear()
        answer.set_result(None)

    def _measure(self, answer: Future, config: dict[str, Any], width: int) -> None:
        trial = Trial(self.plan, config)
        t = min(1, len(trial.stream.tasks) - 1)
        task = batch_of(self.plan, t, trial.engine.method.data)
        answer.set_result(measure(trial.engine, trial.lane.hyper, task, t, width))

    def _test_row(self, answer: Future, config: dict[str, Any]) -> None:
        plan = on_device(Plan(**config["plan"]))
        trial = Trial(plan, config["hyper"], config.get("seed"))
        trial.restore(checkpoint_file(config["checkpoints"], config["number"]))
        splits = benchmarks.load_test(plan.benchmark, **plan.benchmark_options())
        splits = splits[plan.begin : plan.end]
        sizes = [len(split.y) for split in splits]
        answer.set_result((trial.evaluate(splits), sizes, trial.measure(splits)))

    def _show(self) -> None:
        """What ps and top show. With Ray's own function: Ray has moved the memory that the package
        setproctitle looks for."""
        setproctitle(f"ray::{self.plan.method} engine, {len(self.trials)} trials")


def restore(trial: Trial, file: Path) -> bool:
    """Whether a trial goes on from its file. One that is damaged means to start over."""
    if not file.exists():
        return False
    try:
        trial.restore(file)
    except CheckpointError as error:
        log.warning("trial starts over: %s", error)
        return False
    return True


def describe(error: Exception) -> str:
    """An exception as one line."""
    return f"{type(error).__name__}: {error}".replace("\n", " ")


def on_device(plan: Plan) -> Plan:
    """The plan on the GPU that Ray gave this process, or on the CPU.

    Raises:
        RuntimeError: if there is such a GPU, but PyTorch cannot use it.
    """
    if not ray.get_gpu_ids():
        return plan
    if not torch.cuda.is_available():
        raise RuntimeError(
            "Ray gave this engine a GPU, but PyTorch finds none: install a CUDA build of torch and "
            "a driver for it, or search with --gpus-per-engine 0"
        )
    return plan._replace(device="cuda")


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, where it is glibc.

    A step allocates and frees the same few megabytes; by default they go back to the kernel each
    time and are mapped anew, page by page, which was a quarter of the time of a step.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
