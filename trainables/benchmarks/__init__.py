"""Task streams: which data, cut into which tasks, and what a search may see of them.

    stream = load("split_digits", scenario="class", seed=0)
    stream.tasks[0].train.x                                    # (N, 64) float32 in [-1, 1]
    test = load_test("split_digits", scenario="class", seed=0)    # after the search, once

Each task's training data is divided: 20 % of every class, chosen by ``seed``, are its validation
part. `load` reads training data only; `load_test` is the one door to test data. The order of the
classes is a permutation that ``seed`` chooses (0 too). Where the training data are to be recalled
(``memorize``), they are also the validation and the test data, in the same order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from trainables.benchmarks import embedders, sources
from trainables.benchmarks.sources import Examples, Part
from trainables.benchmarks.splits import class_groups, hold_out
from trainables.benchmarks.stream import SCENARIOS, Split, Stream, Task, cut
from trainables.engine.errors import DataError, unknown
from trainables.engine.method import Problem

__all__ = [
    "BENCHMARKS",
    "SCENARIOS",
    "Benchmark",
    "DataError",
    "Split",
    "Stream",
    "Task",
    "load",
    "load_test",
    "names",
]

VALIDATION = 0.2  # share of a task's training data


@dataclass(frozen=True)
class Benchmark:
    """A data set cut into tasks of equal numbers of classes, no class twice."""

    name: str
    source: Callable[[str | Path | None, Part], Examples]
    tasks: int
    classes_per_task: int
    description: str
    recall: bool = False
    """Whether the training data are the validation data too. Their source has one part only."""


BENCHMARKS = {
    b.name: b
    for b in (
        Benchmark("split_digits", sources.digits, 5, 2, "1,797 digits of 8 × 8 pixels"),
        Benchmark("split_digits_10", sources.digits, 10, 1, "1,797 digits of 8 × 8 pixels"),
        Benchmark("split_mnist", sources.mnist, 5, 2, "70,000 digits of 28 × 28 pixels"),
        Benchmark("split_mnist_10", sources.mnist, 10, 1, "70,000 digits of 28 × 28 pixels"),
        Benchmark("split_fashion", sources.fashion, 5, 2, "70,000 clothes of 28 × 28 pixels"),
        Benchmark("split_fashion_10", sources.fashion, 10, 1, "70,000 clothes of 28 × 28 pixels"),
        Benchmark("gaussian", sources.gaussian, 3, 2, "420 points in 8 dimensions, for tests"),
        Benchmark("memorize", sources.vectors(10_000), 1, 1, "10,000 vectors to recall", True),
        Benchmark("memorize_1000", sources.vectors(1000), 1, 1, "1,000 vectors to recall", True),
    )
}


def names() -> list[str]:
    """Names of all benchmarks, in the order of their declaration."""
    return list(BENCHMARKS)


def load(
    name: str,
    *,
    scenario: str = "class",
    seed: int = 0,
    data_dir: str | Path | None = None,
    embedder: str = "identity",
    dtype: torch.dtype = torch.float32,
) -> Stream:
    """Load what a search may see of a benchmark: training and validation data, never test data.

    Args:
        scenario: what a prediction chooses among. "class": all classes seen so far; "task": the
            classes of the example's own task; "domain": positions inside a task, 0..n−1.
        seed: chooses the order of the classes and the validation examples; the same streams from
            the same seed on every machine.
        data_dir: where ``MNIST/raw/*`` and ``FashionMNIST/raw/*`` are (IDX files, plain or .gz; may
            be read-only). None, or files missing there: downloaded to the user's cache folder.
        embedder: "identity" (pixels in [-1, 1]) or a torchvision classification network whose
            features are extracted once and kept (no fixed range), see ``embedders``.
        dtype: of the inputs.

    Raises:
        ValueError: unknown benchmark, scenario or embedder; an embedder of images for vectors; a
            scenario other than "class" with one class a task, where nothing is left to decide.
        DataError: files or weights that are missing, cannot be downloaded or are corrupt.
    """
    benchmark, groups = _plan(name, scenario, seed, embedder)
    examples = benchmark.source(data_dir, "train")
    x, y = embedders.embed(examples, embedder, dtype), examples.y
    if benchmark.recall:
        trained = held = torch.ones_like(y, dtype=torch.bool)
    else:
        held = hold_out(y, VALIDATION, seed, "validation")
        trained = ~held
    tasks = tuple(
        Task(g, cut(x, y, trained, g, scenario), cut(x, y, held, g, scenario)) for g in groups
    )
    outputs = examples.class_names
    if scenario == "domain":
        shared = zip(*groups, strict=True)
        outputs = tuple(" / ".join(examples.class_names[c] for c in classes) for classes in shared)
    longest = max(len(task.train.y) for task in tasks)
    problem = Problem(tuple(x.shape[1:]), len(outputs), dtype, examples=longest)
    return Stream(name, scenario, seed, problem, outputs, tasks)


def load_test(
    name: str,
    *,
    scenario: str = "class",
    seed: int = 0,
    data_dir: str | Path | None = None,
    embedder: str = "identity",
    dtype: torch.dtype = torch.float32,
) -> tuple[Split, ...]:
    """Open the test data: one `Split` a task, in the order and under the labels of `load`.

    The only door to test data. For the end of a study, after its winner is chosen on validation
    data; nothing that runs during a search may call it. Arguments and errors are those of `load`.
    """
    benchmark, groups = _plan(name, scenario, seed, embedder)
    examples = benchmark.source(data_dir, "test")
    x, y = embedders.embed(examples, embedder, dtype), examples.y
    everywhere = torch.ones_like(y, dtype=torch.bool)
    return tuple(cut(x, y, everywhere, group, scenario) for group in groups)


def _plan(name: str, scenario: str, seed: int, embedder: str):
    """The benchmark and the classes of its tasks, once all names are known to be right."""
    if name not in BENCHMARKS:
        raise unknown("benchmark", name, BENCHMARKS)
    if scenario not in SCENARIOS:
        raise unknown("scenario", scenario, SCENARIOS)
    embedders.check(embedder)
    benchmark = BENCHMARKS[name]
    if scenario != "class" and benchmark.classes_per_task == 1:
        raise ValueError(
            f"{name} has one class a task, which leaves nothing to decide in the {scenario} "
            "scenario: use the class scenario, or a benchmark with more classes a task"
        )
    return benchmark, class_groups(benchmark.tasks, benchmark.classes_per_task, seed)
