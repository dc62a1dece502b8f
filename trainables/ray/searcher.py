"""Optuna's suggestions for Ray Tune: the journal in the study's directory is what counts.

Configurations are asked for and told to an Optuna study that lives in ``study.journal``. Whatever
kills the driver, that file says which configurations were handed out and what became of them, and
a searcher opened on it goes on from there.

A trial that walked the whole stream is told as complete with its score, one that was stopped early
as pruned with its values after each task, one that failed or diverged as failed. A sampler thus
never takes a value after two tasks for a score after five: accuracy falls as tasks are added, so
that trials stopped early would look best.

Differs from ``ray.tune.search.optuna.OptunaSearch``: nothing is pickled and nothing is restored by
Tune; a sampler is made afresh for each trial from (study seed, trial number), so that a resumed
study suggests what an uninterrupted one would; and the first ``STARTUP`` configurations depend on
nothing but the seed.
"""

import logging
import math
import time
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIISampler,
    TPESampler,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState
from ray.tune.search import Searcher
from scipy.stats import qmc

from search_spaces._tree import Space, check_configuration, explore
from trainables.engine.errors import unknown
from trainables.ray.names import SAMPLERS

log = logging.getLogger(__name__)


# Random configurations before a model is believed. Chosen, like the flags of TPE, by
# tests/speed/bench_samplers.py; score of the best of 200 trials, mean ± standard error over 10
# made-up objectives, 1 and 2 trials at a time:
#     random                        0.766 ± 0.013   0.769 ± 0.013
#     TPE, independent, 10          0.873 ± 0.016   0.905 ± 0.013
#     TPE, multivariate, 10         0.909 ± 0.009   0.888 ± 0.015
#     TPE, multivariate, group, 10  0.888 ± 0.013   0.909 ± 0.010
#     - 20                          0.882 ± 0.014   0.868 ± 0.015
#     - 40                          0.852 ± 0.019   0.864 ± 0.012
#     - 10 scrambled Sobol' points  0.885 ± 0.009   0.891 ± 0.018
# The first three kinds of TPE do not differ; ``group`` also models conditional parameters jointly.
# With 1, 8, 16 and 64 trials at a time, and the constant liar on and off (on: trials that run count
# as bad ones, so that suggestions keep away from them), ± 0.016 to 0.020:
#     TPE, multivariate, group, on  0.895   0.868   0.844   0.807
#     - off                         0.895   0.878   0.855   0.815
# after 50 and 100 trials off is ahead as well, by 0.01 to 0.025: its draws differ enough unaided.
STARTUP = 10

# A writer holds the journal's lock for milliseconds; one that is older was left by a killed one.
STALE_LOCK_SECONDS = 5


class ByName(BaseSampler):
    """Places every parameter at a fraction of its range that a function of its name gives.

    Conditional parameters need no care, timing has no say, and a trial whose driver was killed
    while it was drawn is completed as it would have been.
    """

    def __init__(self, fraction: Callable[[str], float]):
        self.fraction = fraction

    def infer_relative_search_space(self, study, trial):
        return {}

    def sample_relative(self, study, trial, search_space):
        return {}

    def sample_independent(self, study, trial, param_name, param_distribution):
        return at(param_distribution, self.fraction(param_name))


def uniform(seed: int, number: int) -> ByName:
    """Random draws, each from (seed, number, name): a new parameter moves no other one."""
    return ByName(
        lambda name: np.random.default_rng([seed, number, zlib.crc32(name.encode())]).random()
    )


def scrambled(seed: int, number: int, names: Sequence[str]) -> ByName:
    """Scrambled Sobol' points with one coordinate for every parameter of the space.

    Differs from ``optuna.samplers.QMCSampler``: that one takes its dimensions from whichever trial
    finished first, and draws what that trial did not have at random.
    """
    points = qmc.Sobol(len(names), rng=np.random.default_rng(seed))
    if number:
        points.fast_forward(number)
    return ByName(dict(zip(names, points.random()[0].tolist(), strict=True)).__getitem__)


def at(distribution, u: float) -> Any:
    """The value at the fraction ``u``, in [0, 1), of a range."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(u * len(distribution.choices))]
    low, high, step = distribution.low, distribution.high, distribution.step
    if distribution.log:
        half = 0.5 if isinstance(distribution, IntDistribution) else 0.0  # rounding fills the ends
        value = (low - half) * ((high + half) / (low - half)) ** u
        value = round(value) if half else value
    elif step is None:
        value = low + (high - low) * u
    else:
        value = low + step * int(u * (round((high - low) / step) + 1))
    return min(max(value, low), high)


def make_sampler(name: str, seed: int, number: int, names: Sequence[str]) -> BaseSampler:
    """The sampler that suggests the configuration of trial ``number``.

    Args:
        name: one of ``SAMPLERS``.
        seed: the study's seed, >= 0.
        number: the trial's number. Below ``STARTUP``, model-based samplers give way to random
            draws: they count *finished* trials themselves, so that which ones are drawn at random
            would depend on how many run side by side.
        names: of all parameters of the space.

    Raises:
        ValueError: for a name that is none of ``SAMPLERS``.
    """
    if name not in SAMPLERS:
        raise unknown("sampler", name, SAMPLERS)
    if name == "qmc":
        return scrambled(seed, number, names)
    if name == "random" or (number < STARTUP and name in ("tpe", "gp", "cmaes")):
        return uniform(seed, number)
    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    if name == "gp":
        return GPSampler(seed=own, n_startup_trials=0)
    if name == "cmaes":
        return CmaEsSampler(seed=own, warn_independent_sampling=False)
    if name == "nsga2":  # its first generation is random; what follows lives in the journal
        return NSGAIISampler(seed=own)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # for group=True
        return TPESampler(
            seed=own, n_startup_trials=0, multivariate=True, group=True, constant_liar=False
        )


class StudySearcher(Searcher):
    """Hands the configurations of one study to Tune, and its results to the study's journal.

    Args:
        space: a module-level function of an Optuna trial that returns the configuration.
        metric: what a result calls the score of a trial.
        directory: of the study; the journal is its ``study.journal``.
        study_name: of the study in the journal, which holds that one only.
        tasks: tasks of the stream; a trial is complete when it has learned them all.
        total: trials of the study, those of earlier runs included.
        mode: ``"max"`` or ``"min"``.
        rung: what a result calls the value that trials stopped after the same task are ranked by;
            the score itself if ``None``.
        sampler: one of ``SAMPLERS``.
        seed: the study's seed.
        first: configurations that are tried before any other.
        batch: ``None``, or how many configurations are asked for together: the next ones wait until
            all of them have ended, so that a study with early stopping is the same twice.
        plan: what every trial's configuration holds beside ``number`` and ``hyper``.
        deadline: no configuration is handed out after this time (``time.monotonic``).

    Raises:
        ValueError: for an unknown sampler, a first configuration that is no point of the space, or
            a journal that is unreadable or holds another study.
    """

    def __init__(
        self,
        space: Space,
        metric: str,
        *,
        directory: str | Path,
        study_name: str,
        tasks: int,
        total: int,
        mode: str = "max",
        rung: str | None = None,
        sampler: str = "tpe",
        seed: int = 0,
        first: Iterable[Mapping[str, Any]] = (),
        batch: int | None = None,
        plan: Mapping[str, Any] | None = None,
        deadline: float | None = None,
    ):
        super().__init__(metric, mode)
        first = [dict(config) for config in first]
        for config in first:
            check_configuration(space, config)
        self._names = [parameter.name for parameter in explore(space)]
        make_sampler(sampler, seed, 0, self._names)
        self._space, self._sampler, self._seed = space, sampler, seed
        self._tasks, self._total, self._batch = tasks, total, batch
        self._rung, self._plan = rung or metric, dict(plan or {})
        self._slots, self._deadline = math.inf, math.inf if deadline is None else deadline
        self.reasons: Mapping[int, str] = {}  # why the scheduler stopped a trial, by its number
        self.study = open_study(Path(directory) / "study.journal", study_name, mode)
        for config in first:
            self.study.enqueue_trial(config, skip_if_exists=True)
        self._running: dict[str, optuna.Trial] = {}  # by Tune's trial id
        self._waiting = deque(  # asked for, but not handed out: first those of a killed driver
            self._configure(trial.number, trial._trial_id)
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        )
        if batch and self._waiting and self._asked() % batch:
            self._ask()  # the driver was killed while it asked for a batch

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next configuration, ``None`` for "later", or ``FINISHED``."""
        if len(self._running) >= self._slots:
            return None
        if time.monotonic() > self._deadline:
            return Searcher.FINISHED
        if not self._waiting:
            if self._asked() >= self._total:
                return Searcher.FINISHED
            if self._batch and self._running:
                return None
            self._ask()
        trial, hyper = self._waiting.popleft()
        self._running[trial_id] = trial
        return {"number": trial.number, "hyper": hyper, **self._plan}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Write down the value after a task; Tune keeps the last result of a trial for the end."""
        if trial_id in self._running:
            try:
                self._report(self._running[trial_id], result)
            except Exception:
                log.exception("trial %d: no value written", self._running[trial_id].number)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the study what became of a trial. Nothing that a trial does raises here."""
        trial = self._running.pop(trial_id, None)
        if trial is None:
            return
        try:
            self._report(trial, result or {})
            state, score, reason = self._verdict(trial.number, result or {}, error)
            if reason:
                trial.set_user_attr("reason", reason)
            self.study.tell(trial, score, state)
        except Exception:
            log.exception("trial %d: not told; it will be run again on resume", trial.number)

    def settle(self, row: Mapping[str, Any], walked: Iterable[Mapping[str, float]]) -> None:
        """Tell what the record holds and the journal does not, after a kill between the two.

        Args:
            row: of a trial that ended: ``trial_id``, ``status``, ``score``, ``reason``.
            walked: what it reported after task 1, 2, ...
        """
        waiting = next((w for w in self._waiting if w[0].number == row["trial_id"]), None)
        if waiting is None:
            return
        self._waiting.remove(waiting)
        trial, states = waiting[0], {"completed": TrialState.COMPLETE, "stopped": TrialState.PRUNED}
        for task, report in enumerate(walked, start=1):
            self._report(trial, {**report, "tasks_learned": task})
        if row["reason"]:
            trial.set_user_attr("reason", row["reason"])
        self.study.tell(trial, row["score"], states.get(row["status"], TrialState.FAIL))

    def history(self) -> list[tuple[int, list[float]]]:
        """``(number, [value after task 1, 2, ...])`` of all trials so far, for the scheduler.

        NaN where a value is missing.
        """
        return [
            (t.number, [t.intermediate_values.get(k + 1, math.nan) for k in range(t.last_step)])
            for t in self.study.get_trials(deepcopy=False)
            if t.last_step is not None
        ]

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Take ``TuneConfig.max_concurrent_trials`` over from Tune's limiter, which passes on."""
        self._slots = max_concurrent
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing: all that counts is in the journal."""

    def _asked(self) -> int:
        """How many trials were asked for, whatever became of them; the next one's number."""
        states = tuple(state for state in TrialState if state != TrialState.WAITING)
        return len(self.study.get_trials(deepcopy=False, states=states))

    def _ask(self) -> None:
        """Ask for the next configuration, or for all that are left of a batch."""
        asked, batch = self._asked(), self._batch or 1
        for number in range(asked, min((asked // batch + 1) * batch, self._total)):
            self._waiting.append(self._configure(number))

    def _configure(self, number: int, trial_id: int | None = None):
        """The trial of that number, new or from the journal, and its configuration.

        A trial from the journal keeps the values that it has; if the driver was killed while they
        were drawn, the rest is what would have been drawn then.
        """
        self.study.sampler = make_sampler(self._sampler, self._seed, number, self._names)
        trial = self.study.ask() if trial_id is None else optuna.Trial(self.study, trial_id)
        return trial, self._space(trial)

    def _report(self, trial: optuna.Trial, result: dict[str, Any]) -> None:
        """Write down the value after a task, once: a trial that restarts repeats itself."""
        value, task = _number(result.get(self._rung)), result.get("tasks_learned", 0)
        known = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        if task and task not in known and math.isfinite(value):
            trial.report(value, task)

    def _verdict(self, number: int, result: dict[str, Any], error: bool):
        """State, score and reason of a trial that has ended with this last result."""
        task, score = result.get("tasks_learned", 0), _number(result.get(self.metric))
        if result.get("failure"):
            return TrialState.FAIL, None, str(result["failure"])
        if error:
            return TrialState.FAIL, None, "raised an error"
        if self.metric not in result:
            return TrialState.FAIL, None, f"no {self.metric!r} in its last result"
        if not math.isfinite(score):
            given = result[self.metric]
            return TrialState.FAIL, None, f"{self.metric} = {given} after task {task}"
        if task >= self._tasks:
            return TrialState.COMPLETE, score, None
        return TrialState.PRUNED, None, self.reasons.get(number, f"stopped after task {task}")


def open_study(journal: Path, name: str, mode: str = "max") -> optuna.Study:
    """Open or begin the study of this name in a journal that holds no other.

    Raises:
        ValueError: if the journal holds another study or cannot be read.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = str(journal.absolute())
    # Not the default lock, a symbolic link: left behind at a relative path, it hangs for ever.
    lock = JournalFileOpenLock(file, grace_period=STALE_LOCK_SECONDS)
    backend = JournalFileBackend(file, lock)
    _mend(journal)
    try:
        storage = JournalStorage(backend)
    except (ValueError, KeyError) as error:
        raise ValueError(f"{journal} is not a readable Optuna journal: {error}") from error
    for other in optuna.get_all_study_names(storage):
        if other != name:
            raise ValueError(f"{journal} holds the study {other!r}, not {name!r}")
    direction = "maximize" if mode == "max" else "minimize"
    return optuna.create_study(
        storage=storage, study_name=name, direction=direction, load_if_exists=True
    )


def _mend(journal: Path) -> None:
    """Cut off a last line that a killed process left unfinished.

    Optuna reads past it, but would write its next entry on to it and never read the file again.
    """
    with journal.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
            log.warning("%s: removed an entry cut short when its writer was killed", journal)


def _number(value: Any) -> float:
    """A float, NaN for whatever is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
