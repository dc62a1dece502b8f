"""The engines of a study: how many, on what, and how many trials each of them trains at once."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError

from trainables.engine.widths import Cost, best_width
from trainables.ray.cluster import Cluster, ClusterError
from trainables.ray.engine import EngineActor
from trainables.ray.trial import Plan

DEATHS = 2  # of an engine that a task of a trial outlives
TRIALS_A_SLOT = 12  # see ``most_lanes``
LATE = 300  # seconds that an engine may start after the first one
QUIT = 5  # seconds that engines have to answer what is still asked of them
MEMORY_SHARE = 0.5  # of what is free that lanes may take


class Engines(NamedTuple):
    """Engine actors, and how many trials each of them trains at once."""

    actors: Sequence[Any]
    lanes: int


def placed(
    cluster: Cluster, engines: int | None, gpus: float | None
) -> tuple[int, float, str | None]:
    """How many engines, the GPUs of each, and a remark if that is not what was asked for.

    Args:
        cluster: to place them on. One that somebody else runs may grow: it is asked for whatever
            the user asks for.
        engines: asked for, or None: one for each GPU (or share of one), else one for each CPU.
        gpus: an engine asked for, or None: one if there are any.
    """
    note = None
    if gpus is None:
        gpus = 1 / math.ceil((engines or 1) / cluster.gpus) if cluster.gpus else 0.0
    elif cluster.local and gpus > cluster.gpus:
        found = f"{cluster.gpus} GPUs" if cluster.gpus else "no GPU"
        note = f"asked for {gpus:g} GPUs an engine, found {found} here: training on the CPU"
        gpus = 0.0
    fit = cluster.cpus
    if gpus:  # a share lies on one GPU
        fit = cluster.gpus * int(1 / gpus) if gpus < 1 else int(cluster.gpus / gpus)
    fit = max(1, fit)
    if engines and gpus and cluster.local and engines > fit:
        note = f"asked for {engines} engines of {gpus:g} GPUs, found {cluster.gpus} GPUs: {fit}"
        engines = fit
    return engines or fit, gpus, note


@contextlib.contextmanager
def started(
    plan: Plan, cluster: Cluster, count: int, gpus: float, say: Callable[[str], None]
) -> Iterator[list[Any]]:
    """Engine actors for the length of a study.

    Args:
        plan: of the study.
        cluster: to place them on.
        count: how many, >= 1. Each has as many CPUs as all of them find (``share``).
        gpus: that each of them holds.
        say: told now and then how many are still to come.

    Returns:
        The actors that are ready to train: those that were ``LATE`` seconds after the first one.
        What comes later is not waited for, and given back.

    Raises:
        ClusterError: if an engine cannot start.
    """
    cpus = share(cluster.machines, count)
    actor: Any = ray.remote(EngineActor)
    options = actor.options(
        num_cpus=cpus, num_gpus=gpus, max_restarts=-1, max_task_retries=DEATHS, max_concurrency=1000
    )
    actors = [options.remote(plan._asdict(), cpus) for _ in range(count)]
    try:
        waiting, ready, deadline = {a.ready.remote(): a for a in actors}, [], math.inf
        while waiting and time.monotonic() < deadline:
            answered, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=20)
            try:
                ray.get(answered)
            except RayError as error:
                reason = str(error).strip().splitlines()[-1]  # of a traceback in a worker
                raise ClusterError(f"an engine did not start: {reason}") from error
            ready += [waiting.pop(answer) for answer in answered]
            if ready:
                deadline = min(deadline, time.monotonic() + LATE)
            if waiting:
                say(
                    f"{len(ready)} of {count} engines are ready; each of the others waits for a "
                    f"machine with {cpus} free CPUs and {gpus:g} GPUs"
                )
        for actor in waiting.values():
            ray.kill(actor)
        yield ready
    finally:
        with contextlib.suppress(RayError):  # a call that is cut off makes Ray complain
            ray.get([actor.quit.remote() for actor in actors], timeout=QUIT)
        for actor in actors:
            ray.kill(actor)


def share(machines: Sequence[int], count: int) -> int:
    """The most CPUs that each of ``count`` engines finds on a machine, 1 at least.

    Args:
        machines: CPUs of each.
    """
    fits = lambda cpus: sum(has // cpus for has in machines) >= count  # noqa: E731
    return max(filter(fits, range(1, max(machines, default=0) + 1)), default=1)


def most_lanes(trials: int, engines: int) -> int:
    """Lanes an engine that a search of so many trials should have at most.

    A configuration is suggested without the results of those that are under way. What that costs
    (tests/speed/bench_samplers.py, TPE): the best of 200 scores 0.895 with one at a time, 0.878
    with 8, 0.855 with 16 and 0.815 with 64, where the best of 100, one at a time, scores 0.869.
    """
    return max(1, math.ceil(trials / TRIALS_A_SLOT / engines))


def measured_lanes(actors: Sequence[Any], config: dict[str, Any], most: int) -> tuple[int, str]:
    """Lanes an engine, by a measurement on all engines at once, and the figures in words.

    An engine gets two lanes for each of the narrowest pack that is wide enough, since not all of
    them wait for the same phase.

    Args:
        config: of the method, the default say.
        most: lanes at most.
    """
    costs: list[Cost] = []
    for width in [2**i for i in range(most.bit_length())]:
        try:
            found: list[Cost] = ray.get([actor.measure.remote(config, width) for actor in actors])
        except RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ClusterError(f"an engine cannot train this method: {reason}") from error
        costs.append(max(found, key=lambda cost: cost.seconds))
    size = max(1, costs[-1].bytes)  # the first ones pay for what all share
    fit = int(MEMORY_SHARE * costs[-1].free / size / len(actors))
    lanes = max(1, min(2 * best_width(costs), most, fit))
    times = ", ".join(f"{cost.seconds:.2f} s in packs of {cost.width}" for cost in costs)
    return lanes, f"a task takes {times}; {size / 2**20:.0f} MiB a lane"
