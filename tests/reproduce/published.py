"""Published numbers, and what our methods reach on the same streams: docs/methods.md.

python -m tests.reproduce.published --data-dir DIR

A method has its space's default, or what its row says; where a row has values to choose among, one
run of each is compared on validation data, with a seed of its own, before test data is opened.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import search_spaces
import trainables
from analysis.statistics import mean_interval
from trainables import benchmarks
from trainables.engine.learn import learn
from trainables.engine.method import configure
from trainables.engine.packs import Engine

VAN_DE_VEN = "van de Ven et al. 2022"
TOLIAS = "van de Ven & Tolias 2019"
HSU = "Hsu et al. 2018"
AGEM = "Chaudhry et al. 2019"
TUNING_SEED = 1000


class Setting(NamedTuple):
    """How the papers train on a stream, or how we do where that takes hours on a CPU."""

    steps: int  # updates a task
    shapes: dict[str, int]
    embedder: str = "identity"  # pixels in [-1, 1]; "unit": in [0, 1], as in the papers


SETTINGS = {
    # 2 x 400 units, batches of 128, 100 examples of each class in memory: all as in the paper.
    "split_mnist": Setting(
        2000,
        {
            "hidden": 400, "layers": 2, "batch_size": 128, "replay_batch_size": 128,
            "memory_size": 1000,
        },
    ),
    # The paper has 5000 updates at a rate of 0.0001, 2 x 1000 units and images of 32 x 32.
    "permuted_mnist": Setting(1000, {"hidden": 400, "layers": 2, "batch_size": 128}, "unit"),
    # As many updates as a single pass over 55,000 images has; 25 examples a class and task.
    "permuted_mnist_17": Setting(
        5500,
        {
            "hidden": 256, "layers": 2, "batch_size": 10, "replay_batch_size": 256,
            "memory_size": 4250,
        },
        "unit",
    ),
}  # fmt: skip


class Row(NamedTuple):
    """One published number, in per cent, and what we have to reach to agree with it."""

    method: str
    benchmark: str
    scenario: str
    published: float
    source: str
    low: float  # the gate
    high: float = 100.0
    own: dict[str, Any] = {}  # noqa: RUF012  # beside the setting and the default
    among: dict[str, Sequence[float]] = {}  # noqa: RUF012  # values of one hyperparameter


STRENGTHS = (1.0, 10.0, 100.0)
SOFT = (0.001, 0.01, 0.1, 1.0)  # every unit serves every task: nothing may freeze
SOFTER = (0.0003, 0.001, 0.003, 0.01)
RATES = {"lr": (1e-4, 1e-3)}  # the paper's, and one that a fifth of its updates needs to learn
PLAIN = {"optimizer": "sgd", "beta1": 0.0, "lr": 0.1}
ROWS = (
    Row("sequential", "split_mnist", "class", 19.9, VAN_DE_VEN, 19.0, 24.0),
    Row("ewc", "split_mnist", "class", 20.6, VAN_DE_VEN, 19.0, 24.0),
    Row("si", "split_mnist", "class", 21.2, VAN_DE_VEN, 19.0, 24.0),
    Row("mas", "split_mnist", "class", 19.5, HSU, 19.0, 24.0),
    Row("lwf", "split_mnist", "class", 21.9, VAN_DE_VEN, 19.0, 26.0),
    Row("agem", "split_mnist", "class", 65.1, VAN_DE_VEN, 55.0, 75.0),
    Row("er", "split_mnist", "class", 88.8, VAN_DE_VEN, 87.0),
    Row("icarl", "split_mnist", "class", 92.5, VAN_DE_VEN, 90.0),
    Row("joint", "split_mnist", "class", 98.2, VAN_DE_VEN, 97.0),
    Row("sequential", "split_mnist", "task", 84.3, VAN_DE_VEN, 80.0, 98.0),
    Row("ewc", "split_mnist", "task", 99.1, VAN_DE_VEN, 97.5, among={"ewc": STRENGTHS}),
    Row("si", "split_mnist", "task", 99.2, VAN_DE_VEN, 97.5, among={"si": STRENGTHS}),
    Row("mas", "split_mnist", "task", 99.2, HSU, 97.5, among={"mas": STRENGTHS}),
    Row("lwf", "split_mnist", "task", 99.6, VAN_DE_VEN, 97.5),
    Row("er", "split_mnist", "task", 99.0, VAN_DE_VEN, 97.5),
    Row("agem", "split_mnist", "task", 98.6, VAN_DE_VEN, 97.5),
    Row("joint", "split_mnist", "task", 99.7, VAN_DE_VEN, 98.0),
    Row("sequential", "permuted_mnist", "domain", 78.5, TOLIAS, 60.0, 85.0, among=RATES),
    Row("ewc", "permuted_mnist", "domain", 94.3, TOLIAS, 92.0, among={"ewc": SOFT}),
    Row("si", "permuted_mnist", "domain", 95.3, TOLIAS, 92.0, among={"si": SOFTER}),
    Row("agem", "permuted_mnist_17", "domain", 89.1, AGEM, 87.0, own=PLAIN),
    Row("rwalk", "permuted_mnist_17", "domain", 85.8, AGEM, 83.0, among={"rwalk": SOFT}),
    Row("ewc", "permuted_mnist_17", "domain", 68.4, AGEM, 65.0, among={"ewc": SOFT}),
)


class Reached(NamedTuple):
    """What one row came to."""

    accuracies: list[float]  # average accuracies on test data in per cent, one a seed
    steps: int  # updates a task
    seconds: float  # of a seed
    chosen: dict[str, float]  # among several


def reached(
    row: Row, data_dir: str, share: float, seeds: int, embedder: str | None = None
) -> Reached:
    """Train a row's method on its stream and open the test data."""
    setting, module = SETTINGS[row.benchmark], trainables.load(row.method)
    seen = embedder or setting.embedder
    where: Any = {"scenario": row.scenario, "data_dir": data_dir, "embedder": seen}
    stream = benchmarks.load(row.benchmark, **where)
    config = search_spaces.load(row.method).DEFAULT
    config = config | {k: v for k, v in setting.shapes.items() if k in module.Shape._fields}
    steps = max(1, round(setting.steps * share))
    shape, hyper = configure(module, config | {"steps": steps} | row.own)
    method, chosen = module.build(stream.problem, shape), {}
    for name, values in row.among.items():
        tries = [(hyper._replace(**{name: value}), TUNING_SEED) for value in values]
        scores = [np.nan_to_num(w.accuracy[-1]).mean() for w in learn(method, stream, tries)]
        chosen[name] = values[int(np.argmax(scores))]
    started, hyper = time.perf_counter(), hyper._replace(**chosen)
    walks = learn(method, stream, [(hyper, seed) for seed in range(seeds)])
    seconds = (time.perf_counter() - started) / seeds
    test = benchmarks.load_test(row.benchmark, **where)
    rivals = stream.rivals(len(stream.tasks) - 1)
    rows = Engine(method, stream.problem).evaluate([walk.state for walk in walks], test, rivals)
    return Reached([100 * float(np.mean(one)) for one in rows], steps, seconds, chosen)


def line(row: Row, found: Reached) -> str:
    """A line of the table."""
    mean = mean_interval(found.accuracies)
    agrees = "yes" if row.low <= mean.mean <= row.high else "**no**"
    gate = f"≥ {row.low:g}" if row.high == 100 else f"{row.low:g} to {row.high:g}"
    own = ", ".join(f"{name} {value:g}" for name, value in found.chosen.items())
    cells = (
        f"`{row.method}`", f"`{row.benchmark}`", row.scenario, f"{row.published}", row.source, gate,
        f"{mean.mean:.1f} ± {mean.half:.1f}", agrees, f"{found.steps}", own, f"{found.seconds:.0f}",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


HEAD = (
    "| method | stream | scenario | published | by | gate | ours | within | updates a task "
    "| chosen | seconds |\n" + "|---" * 11 + "|"
)


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--data-dir", required=True, help="folder of the data sets")
    p.add_argument("--share", type=float, default=1.0, help="of the updates (default: all)")
    p.add_argument("--seeds", type=int, default=3, help="runs of each row (default: 3)")
    p.add_argument("--only", nargs="*", default=[], metavar="NAME", help="methods, streams or both")
    p.add_argument("--scenario", choices=("task", "class", "domain"), help="rows of one scenario")
    p.add_argument("--embedder", help="what methods see (default: as SETTINGS says)")
    p.add_argument("--out", type=Path, help="Markdown file for the table")
    args = p.parse_args()
    lines = [HEAD]
    print(HEAD)
    for row in ROWS:
        asked = {row.method, row.benchmark} & set(args.only) or not args.only
        if asked and args.scenario in (None, row.scenario):
            lines.append(
                line(row, reached(row, args.data_dir, args.share, args.seeds, args.embedder))
            )
            print(lines[-1], flush=True)
            if args.out:
                args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
