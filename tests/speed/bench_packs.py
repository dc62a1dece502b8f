"""What packs save, side by side with what people do today. Figures: docs/performance.md.

    python -m tests.speed.bench_packs search --trials 48      trials per hour of a whole search
    python -m tests.speed.bench_packs steps                   milliseconds a step, by width
    python -m tests.speed.bench_packs platform --trials 200   what a trial costs beside its training
    python -m tests.speed.bench_packs memory                  megabytes by width

Every number is one of several measured in turn in the same run, on an otherwise idle machine.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil
import torch
from rich.console import Console

import search_spaces
import trainables
from trainables import benchmarks
from trainables.engine import noise, packs, widths
from trainables.engine.method import configure
from trainables.ray import environment

environment.prepare(None)  # before Ray is imported

from analysis.store import Record  # noqa: E402
from tests.speed import eager, ordinary  # noqa: E402
from trainables import lgm_acgan  # noqa: E402
from trainables.ray import engines, settings, study  # noqa: E402
from trainables.ray.cluster import connected  # noqa: E402
from trainables.ray.engine import EngineActor, keep_freed_memory  # noqa: E402

ROUNDS = 5
BENCHMARK = "split_digits"


def in_own_process(function: Callable, *arguments) -> Any:
    """So that no measurement profits or suffers from the one before."""
    context = get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=send, args=(there, function, arguments))
    process.start()
    there.close()
    result = here.recv()
    for left in psutil.Process(process.pid).children(recursive=True):
        left.kill()  # joblib's idle workers would live on for five minutes
    process.kill()
    return result


def send(there, function: Callable, arguments: tuple) -> None:
    there.send(function(*arguments))


# ---- (a) a whole search --------------------------------------------------------------------------


def ours(trials: int, lanes: int | None, method: str = "lgm_acgan", untrained: bool = False):
    """Seconds of a search without early stopping, Ray's start included; and its scores."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, connected(None, None) as cluster:
        directory, console = Path(folder), Console(quiet=True)
        settled = settings.Study(
            "bench", method, BENCHMARK, trials=trials, sampler="random", scheduler="none"
        )
        if untrained:
            engines.EngineActor = Untrained
        settings.write(directory, settled)
        plan, cpus = study.plan_of(settled), cluster.cpus
        with (
            engines.started(plan, cluster, cpus, 0, print) as actors,
            Record(directory, "bench") as record,
        ):
            settled, lanes = study.choose_lanes(settled, actors, lanes, print)
            session = study.Session(
                settled, directory, record, engines.Engines(actors, lanes), console
            )
            searched = time.perf_counter()
            study.search(session, None)
            searched = time.perf_counter() - searched
            rows = [row for row in record.trials() if row["role"] == "search"]
    seconds = time.perf_counter() - started
    return seconds, searched, [row["score"] for row in rows], sum(r["seconds"] for r in rows)


def search(trials: int, lanes: int | None, runners: list[str]) -> None:
    configs = ordinary.configurations(trials)
    seconds, _, scores, _ = in_own_process(ours, trials, lanes)
    rows = {"lgm-search": (seconds, scores)}
    for name in runners:
        rows[name] = in_own_process(ordinary.run, name, configs, BENCHMARK)
        print(name, rows[name][0], flush=True)
    print(f"{'':24}{'seconds':>10}{'trials/h':>10}{'ours is':>10}{'joint accuracy':>18}")
    for name, (seconds, scores) in rows.items():
        ratio = seconds / rows["lgm-search"][0]
        mean, error = np.mean(scores), np.std(scores, ddof=1) / np.sqrt(len(scores))
        print(
            f"{name:24}{seconds:10.1f}{3600 * trials / seconds:10.0f}{ratio:9.2f}×"
            f"{mean:12.3f} ± {error:.3f}"
        )


# ---- (b) a step ----------------------------------------------------------------------------------


def shape_of(method: str, hidden: int):
    """The method's shape with all hidden layers of one width."""
    shape = trainables.load(method).Shape()
    return shape._replace(**{name: hidden for name in shape._fields if name.endswith("hidden")})


def engine_of(method: str, hidden: int) -> tuple[packs.Engine, Any, Any]:
    module, stream = trainables.load(method), benchmarks.load(BENCHMARK)
    _, hyper = configure(module, search_spaces.load(method).DEFAULT)
    engine = packs.Engine(module.build(stream.problem, shape_of(method, hidden)), stream.problem)
    return engine, hyper, stream.batch(1, engine.method.data)


def eager_task(hidden: int) -> float:
    """Seconds of the default's second task in eager PyTorch, measured like a pack's."""
    stream, hyper = benchmarks.load(BENCHMARK), lgm_acgan.Hyper()
    learner = eager.Learner(stream.problem, shape_of("lgm_acgan", hidden), hyper)
    learner.begin_task(stream, 1)
    seconds = 0.0
    for phase, count in widths.by_phase(lgm_acgan.schedule(hyper, 1)).items():
        step = getattr(learner, f"{phase}_step")
        for _ in range(3):
            step()
        started = time.perf_counter()
        for _ in range(noise.BLOCK):
            step()
        seconds += count * (time.perf_counter() - started) / noise.BLOCK
    return seconds


def steps(methods: list[str], sizes: list[int], all_widths: list[int], plot: Path | None) -> None:
    torch.set_num_threads(1)
    print("milliseconds a step and trial, one thread; × of the eager loop")
    medians: dict[tuple[str, int], dict[str, float]] = {}
    for method in methods:
        for hidden in sizes:
            engine, hyper, task = engine_of(method, hidden)
            count = sum(n for _, n in engine.method.schedule(hyper, 1))
            times: dict[str, list[float]] = {}
            for _ in range(ROUNDS):
                if method == "lgm_acgan":
                    times.setdefault("eager", []).append(eager_task(hidden) / count)
                for width in all_widths:
                    cost = widths.measure(engine, hyper, task, 1, width)
                    times.setdefault(f"{width}", []).append(cost.seconds / count)
            print(f"{method}, {hidden} hidden units")
            for name, seconds in times.items():
                middle = 1e3 * statistics.median(seconds)
                medians.setdefault((method, hidden), {})[name] = middle
                line = f"  {name:>6}  {middle:7.3f} ms"
                if "eager" in times:
                    pairs = zip(seconds, times["eager"], strict=True)
                    line += f"  {statistics.median(a / b for a, b in pairs):5.2f} ×"
                print(line, flush=True)
    if plot:
        draw(medians, plot)


def draw(medians: dict[tuple[str, int], dict[str, float]], file: Path) -> None:
    """Milliseconds a step and trial by width; dotted where PyTorch runs eagerly."""
    from matplotlib import pyplot as plt

    plt.style.use("tableau-colorblind10")
    figure, axes = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
    for (method, hidden), times in medians.items():
        by_width = {int(name): ms for name, ms in times.items() if name != "eager"}
        label = f"{method}, {hidden} hidden units"
        (line,) = axes.plot(list(by_width), list(by_width.values()), marker="o", label=label)
        if "eager" in times:
            axes.axhline(times["eager"], color=line.get_color(), linestyle=":")
    axes.set_xscale("log", base=2, subs=[])
    axes.set_yscale("log")
    axes.set_xticks(sorted({int(n) for times in medians.values() for n in times if n != "eager"}))
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("trials that step together")
    axes.set_ylabel("milliseconds a step and trial")
    axes.grid(alpha=0.3)
    figure.legend(title="dotted: eager PyTorch", loc="outside lower center", ncols=2)
    figure.savefig(file, dpi=150)


# ---- (c) the platform ----------------------------------------------------------------------------


class Untrained(EngineActor):
    """An engine whose lanes have learned their task as soon as they sit down."""

    def __init__(self, *arguments):
        packs.program_of = lambda *_: []
        super().__init__(*arguments)


def platform(trials: int, lanes: int) -> None:
    for method in ("sequential", "lgm_acgan"):
        _, searched, _, trained = in_own_process(ours, trials, lanes, method, True)
        print(
            f"{method}: {1e3 * searched / trials:.0f} ms a trial of 5 tasks, of which evaluation "
            f"{1e3 * trained / trials:.0f} ms in the engines",
            flush=True,
        )


# ---- (d) memory ----------------------------------------------------------------------------------


def peak(hidden: int, width: int) -> float:
    """Megabytes that a process holds after training packs of this width."""
    keep_freed_memory()
    torch.set_num_threads(1)
    engine, hyper, task = engine_of("lgm_acgan", hidden)
    widths.measure(engine, hyper, task, 1, width)
    return psutil.Process().memory_info().rss / 2**20


def memory(sizes: list[int], all_widths: list[int]) -> None:
    for hidden in sizes:
        for width in all_widths:
            held = in_own_process(peak, hidden, width)
            print(f"{hidden} hidden units, packs of {width}: {held:.0f} MiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["search", "steps", "platform", "memory"])
    parser.add_argument("--trials", type=int, default=48)
    parser.add_argument("--lanes", type=int, help="an engine (default: as the search chooses)")
    parser.add_argument("--runners", nargs="+", choices=ordinary.RUNNERS, help="(default: all)")
    parser.add_argument("--methods", nargs="+", default=["lgm_acgan", "sequential"])
    parser.add_argument("--plot", type=Path, help="where to draw the steps")
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 128, 512])
    parser.add_argument("--widths", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if args.what == "search":
        search(args.trials, args.lanes, args.runners or list(ordinary.RUNNERS))
    elif args.what == "steps":
        steps(args.methods, args.hidden, args.widths, args.plot)
    elif args.what == "platform":
        platform(args.trials, args.lanes or 8)
    else:
        memory(args.hidden, args.widths)


if __name__ == "__main__":
    # Under its own name: other processes have to find what is defined here.
    from tests.speed import bench_packs

    bench_packs.main()
