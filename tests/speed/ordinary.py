"""Searches as they are ordinarily run, each over the same list of configurations and seeds.

    python -m tests.speed.ordinary ray_tune --trials 8

A trial is ``tests.speed.eager.walk`` over the whole stream. Nothing is stopped early, so that all
runners take the same steps. Seconds run from before the start of Ray or of joblib's processes until
the last score is there, and leave out what this process imports. One runner a process, please: each
leaves its threads, processes or environment variables behind.

Libraries are imported where they are used: a trial's process must not pay for another runner's.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from search_spaces.lgm_acgan import DEFAULT, space
from tests.speed import eager
from trainables import benchmarks
from trainables.benchmarks import Stream
from trainables.engine.noise import trial_seed
from trainables.ray import environment

Trials = Sequence[tuple[dict[str, Any], int]]  # (configuration, seed)
Outcome = tuple[float, list[float]]  # seconds; final joint accuracy of each trial, in their order


def joint_accuracies(config: dict[str, Any], seed: int, stream: Stream) -> Iterator[float]:
    """Joint accuracy after each task."""
    sizes = [len(task.validation.y) for task in stream.tasks]
    for row in eager.walk(config, seed, stream):
        yield float(np.average(row, weights=sizes[: len(row)]))


# ---- a loop --------------------------------------------------------------------------------------


def plain_loop(trials: Trials, stream: Stream) -> Outcome:
    """One trial after the other in this process, with as many threads as PyTorch takes."""
    started = time.perf_counter()
    scores = [list(joint_accuracies(*trial, stream))[-1] for trial in trials]
    return time.perf_counter() - started, scores


# ---- Optuna --------------------------------------------------------------------------------------


def optuna_joblib(trials: Trials, stream: Stream, cpus: int) -> Outcome:
    """Optuna in joblib's worker processes, one thread each, with a journal that they share."""
    import joblib

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal.log"
        study = open_study(journal)
        for config, seed in trials:
            study.enqueue_trial(config, user_attrs={"seed": seed})
        joblib.Parallel(n_jobs=cpus)(joblib.delayed(optimize_one)(journal, stream) for _ in trials)
        scores = [trial.value for trial in study.trials]
    return time.perf_counter() - started, scores


def open_study(journal: Path):
    import optuna
    from optuna.storages.journal import JournalFileBackend

    storage = optuna.storages.JournalStorage(JournalFileBackend(str(journal)))
    return optuna.create_study(
        storage=storage, study_name="ordinary", direction="maximize", load_if_exists=True
    )


def optimize_one(journal: Path, stream: Stream) -> None:
    """A worker's share: the next trial of the queue."""
    torch.set_num_threads(1)
    open_study(journal).optimize(partial(objective, stream=stream), n_trials=1)


def objective(trial, stream: Stream) -> float:
    accuracy = 0.0
    walked = joint_accuracies(space(trial), trial.user_attrs["seed"], stream)
    for t, accuracy in enumerate(walked, start=1):
        trial.report(accuracy, t)
    return accuracy


# ---- Ray Tune ------------------------------------------------------------------------------------


def ray_tune(trials: Trials, stream: Stream, cpus: int) -> Outcome:
    """Ray Tune as it comes: a function that reports, a process a trial, result files, FIFO.

    Args:
        cpus: of the local Ray instance; a trial holds one.
    """
    environment.prepare(None)  # loopback only
    for name in environment.ALWAYS.keys() - {"RAY_USAGE_STATS_ENABLED"}:
        os.environ.pop(name, None)  # Tune's defaults, not this project's
    import ray
    from ray import tune

    started = time.perf_counter()
    with (
        ray.init(address="local", num_cpus=cpus, include_dashboard=False),
        tempfile.TemporaryDirectory() as folder,
    ):
        learn = tune.with_parameters(trainable, stream=stream)
        among = [{"hyper": config, "seed": seed} for config, seed in trials]
        results = tune.Tuner(
            tune.with_resources(learn, {"cpu": 1}),
            param_space={"trial": tune.grid_search(among)},
            tune_config=tune.TuneConfig(metric="joint_accuracy", mode="max"),
            run_config=tune.RunConfig(storage_path=folder),
        ).fit()
        scores = [result.metrics["joint_accuracy"] for result in results]
    return time.perf_counter() - started, scores


def trainable(config: dict[str, Any], stream: Stream) -> None:
    """A Tune trial."""
    from ray import tune

    trial = config["trial"]
    for accuracy in joint_accuracies(trial["hyper"], trial["seed"], stream):
        tune.report({"joint_accuracy": accuracy})


# ---- any of them ---------------------------------------------------------------------------------


RUNNERS = {f.__name__: f for f in (plain_loop, optuna_joblib, ray_tune)}


def run(
    name: str,
    configs: Sequence[dict[str, Any]],
    benchmark: str = "split_digits",
    cpus: int | None = None,
) -> Outcome:
    """Run one of ``RUNNERS`` with the seeds that a study of seed 0 gives to its trials.

    Args:
        cpus: trials at once, by default as many as there are cores; of no account to a plain loop.
    """
    trials = [(config, trial_seed(0, config)) for config in configs]
    stream, runner = benchmarks.load(benchmark), RUNNERS[name]
    if runner is not plain_loop:
        runner = partial(runner, cpus=cpus or os.cpu_count())
    return runner(trials, stream)


def configurations(trials: int) -> list[dict[str, Any]]:
    """Those of a study of seed 0 that draws at random: the default, then random ones."""
    environment.prepare(None)  # before Ray is imported
    import optuna

    from trainables.ray.searcher import uniform

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    drawn = range(1, trials)
    return [
        dict(DEFAULT),
        *(space(optuna.create_study(sampler=uniform(0, n)).ask()) for n in drawn),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runner", choices=RUNNERS)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--benchmark", default="split_digits")
    parser.add_argument("--cpus", type=int)
    args = parser.parse_args()
    configs = configurations(args.trials)
    seconds, scores = run(args.runner, configs, args.benchmark, args.cpus)
    print(f"{args.runner}: {seconds:.1f} s, {seconds / args.trials:.2f} s a trial")
    print("joint accuracy:", *(f"{score:.3f}" for score in scores))


if __name__ == "__main__":
    main()
