"""Published numbers, and what our methods reach on the same streams: docs/methods.md.

python -m tests.reproduce.published --data-dir DIR

Nothing is searched: a method has its space's default, or what its row says. Test data is opened, as
in the papers.
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

DE_VEN = "van de Ven et al. 2022"
HSU = "Hsu et al. 2018"
# The network and training of van de Ven et al. on split MNIST.
NETWORK = {"hidden": 400, "layers": 2, "batch_size": 128, "replay_batch_size": 128}
MEMORY = 1000  # 100 of each class, as theirs


class Row(NamedTuple):
    """One published number, in per cent, and what we have to reach to agree with it."""

    method: str
    benchmark: str
    scenario: str
    published: float
    source: str
    low: float  # the gate
    high: float = 100.0
    own: dict[str, Any] = {}  # noqa: RUF012  # beside the network and the default


ROWS = (
    Row("sequential", "split_mnist", "class", 19.9, DE_VEN, 19.0, 24.0),
    Row("ewc", "split_mnist", "class", 20.6, DE_VEN, 19.0, 24.0),
    Row("si", "split_mnist", "class", 21.2, DE_VEN, 19.0, 24.0),
    Row("mas", "split_mnist", "class", 19.5, HSU, 19.0, 24.0),
    Row("lwf", "split_mnist", "class", 21.9, DE_VEN, 19.0, 26.0),
    Row("agem", "split_mnist", "class", 65.1, DE_VEN, 55.0, 75.0),
    Row("er", "split_mnist", "class", 88.8, DE_VEN, 87.0),
    Row("icarl", "split_mnist", "class", 92.5, DE_VEN, 90.0),
    Row("joint", "split_mnist", "class", 98.2, DE_VEN, 97.0),
    Row("sequential", "split_mnist", "task", 84.3, DE_VEN, 80.0, 98.0),
    Row("ewc", "split_mnist", "task", 99.1, DE_VEN, 97.5),
    Row("si", "split_mnist", "task", 99.2, DE_VEN, 97.5),
    Row("mas", "split_mnist", "task", 99.2, HSU, 97.5),
    Row("lwf", "split_mnist", "task", 99.6, DE_VEN, 97.5),
    Row("er", "split_mnist", "task", 99.0, DE_VEN, 97.5),
    Row("agem", "split_mnist", "task", 98.6, DE_VEN, 97.5),
    Row("joint", "split_mnist", "task", 99.7, DE_VEN, 98.0),
)


def reached(row: Row, data_dir: str, steps: int, seeds: int) -> tuple[list[float], float]:
    """Average accuracies on test data in per cent, one a seed, and the seconds of a seed."""
    module = trainables.load(row.method)
    stream = benchmarks.load(row.benchmark, scenario=row.scenario, data_dir=data_dir)
    shapes = {**NETWORK, "memory_size": MEMORY}
    config = search_spaces.load(row.method).DEFAULT
    config = config | {k: v for k, v in shapes.items() if k in module.Shape._fields}
    shape, hyper = configure(module, config | {"steps": steps} | row.own)
    method, started = module.build(stream.problem, shape), time.perf_counter()
    walks = learn(method, stream, [(hyper, seed) for seed in range(seeds)])
    seconds = (time.perf_counter() - started) / seeds
    test = benchmarks.load_test(row.benchmark, scenario=row.scenario, data_dir=data_dir)
    rivals = stream.rivals(len(stream.tasks) - 1)
    engine = Engine(method, stream.problem)
    rows = engine.evaluate([walk.state for walk in walks], test, rivals)
    return [100 * float(np.mean(one)) for one in rows], seconds


def line(row: Row, values: Sequence[float], seconds: float) -> str:
    """A line of the table."""
    found = mean_interval(values)
    agrees = "yes" if row.low <= found.mean <= row.high else "**no**"
    gate = f"≥ {row.low:g}" if row.high == 100 else f"{row.low:g} to {row.high:g}"
    cells = (
        f"`{row.method}`", row.benchmark, row.scenario, f"{row.published}", row.source, gate,
        f"{found.mean:.1f} ± {found.half:.1f}", agrees, f"{seconds:.0f}",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


HEAD = """| method | stream | scenario | published | by | gate | ours | within | seconds |
|---|---|---|---|---|---|---|---|---|"""


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--data-dir", required=True)
    p.add_argument("--steps", type=int, default=2000, help="updates a task (the papers': 2000)")
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--only", nargs="*", default=[], metavar="METHOD", help="some methods")
    p.add_argument("--out", type=Path, help="Markdown file for the table")
    args = p.parse_args()
    lines = [HEAD]
    print(HEAD)
    for row in ROWS:
        if not args.only or row.method in args.only:
            lines.append(line(row, *reached(row, args.data_dir, args.steps, args.seeds)))
            print(lines[-1], flush=True)
            if args.out:
                args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
