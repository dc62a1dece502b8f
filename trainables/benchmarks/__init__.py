"""Task streams: which data, cut into which tasks, and what a search may see of them.

    stream = load("split_digits", scenario="class", seed=0)
    stream.tasks[0].train.x                                    # (N, 1, 8, 8) float32 in [-1, 1]
    test = load_test("split_digits", scenario="class", seed=0)    # after the search, once

Each task's training data is divided: 20 % of every class, chosen by ``seed``, are its validation
part. `load` reads training data only; `load_test` is the one door to test data. The order of the
classes is a permutation that ``seed`` chooses (0 too). Where the training data are to be recalled
(``memorize``), they are also the validation and the test data, in the same order.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from trainables.benchmarks import cub, embedders, sources
from trainables.benchmarks.sources import Examples, Part
from trainables.benchmarks.splits import class_groups, hold_out
from trainables.benchmarks.stream import SCENARIOS, Split, Stream, Task, cut
from trainables.engine.errors import DataError, unknown
from trainables.engine.method import Problem

__all__ = [
    "ATTRIBUTES",
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
ATTRIBUTES = {  # who may be told the class attributes, by the names of ``load``
    "none": (),
    "generator": ("generator",),
    "classifier": ("classifier",),
    "both": ("generator", "classifier"),
}


@dataclass(frozen=True)
class Benchmark:
    """A data set cut into tasks of equal numbers of classes, no class twice."""

    name: str
    source: Callable[[str | Path | None, Part], Examples]
    tasks: int
    classes_per_task: int
    description: str
    attributes: Callable[[str | Path | None], Tensor] | None = None
    """``data_dir`` -> (C, A), a description of every class in numbers, where there is one."""
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
        Benchmark("cub100", cub.photographs, 10, 10, "5,902 birds as 512 features", cub.attributes),
        Benchmark("gaussian", sources.gaussian, 3, 2, "420 points in 8 dimensions, for tests"),
        Benchmark(
            "memorize", sources.vectors(10_000), 1, 1, "10,000 vectors to store", recall=True
        ),
        Benchmark(
            "memorize_1000", sources.vectors(1000), 1, 1, "1,000 vectors to store", recall=True
        ),
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
    tasks: int | None = None,
    attributes: str = "none",
    dtype: torch.dtype = torch.float32,
) -> Stream:
    """Load what a search may see of a benchmark: training and validation data, never test data.

    Args:
        scenario: what a prediction chooses among. "class": all classes seen so far; "task": the
            classes of the example's own task; "domain": positions inside a task, 0..n−1.
        seed: chooses the order of the classes and the validation examples; the same streams from
            the same seed on every machine.
        data_dir: where ``MNIST/raw/*`` and ``FashionMNIST/raw/*`` are (IDX files, plain or .gz; may
            be read-only). None, or files missing there: downloaded to the user's cache folder,
            except for ``cub100``, whose files must be there (see ``cub``).
        embedder: "identity" (pixels in [-1, 1]), "base_task" (features that the first task
            teaches), or a torchvision classification network, "resnet18", or one of its nodes,
            "resnet18.layer3", whose features are extracted once and kept; see ``embedders``.
        tasks: how many tasks of equal size the classes are cut into, in an order that does not
            depend on it; 1 is joint training. None: the benchmark's own number.
        attributes: which part of the method is told the class attributes: "none", "generator",
            "classifier" or "both". They are in ``problem.attributes``, each class's of length 1.
        dtype: of the inputs.

    Raises:
        ValueError: unknown benchmark, scenario or embedder; an embedder of images for vectors;
            tasks that do not divide the classes; one class a task, where nothing is left to decide,
            in a scenario other than "class" or with "base_task"; attributes that the benchmark does
            not have, or in the domain scenario, where an output stands for several classes.
        DataError: files or weights that are missing, cannot be downloaded or are corrupt.
    """
    benchmark, groups = _plan(name, scenario, seed, embedder, tasks, attributes)
    examples = benchmark.source(data_dir, "train")
    first = functools.partial(_first_task, benchmark, data_dir, groups[0], seed)
    x, y = embedders.embed(examples, embedder, dtype, first), examples.y
    if benchmark.recall:
        trained = held = torch.ones_like(y, dtype=torch.bool)
    else:
        held = hold_out(y, VALIDATION, seed, "validation")
        trained = ~held
    cuts = tuple(
        Task(g, cut(x, y, trained, g, scenario), cut(x, y, held, g, scenario)) for g in groups
    )
    outputs = examples.class_names
    if scenario == "domain":
        shared = zip(*groups, strict=True)
        outputs = tuple(" / ".join(examples.class_names[c] for c in classes) for classes in shared)
    longest = max(len(task.train.y) for task in cuts)
    problem = Problem(tuple(x.shape[1:]), len(outputs), dtype, examples=longest)
    if benchmark.attributes and (told := ATTRIBUTES[attributes]):
        known = normalize(benchmark.attributes(data_dir)).to(dtype)
        problem = problem._replace(attributes=known, attributes_in=told)
    return Stream(name, scenario, seed, problem, outputs, cuts)


def load_test(
    name: str,
    *,
    scenario: str = "class",
    seed: int = 0,
    data_dir: str | Path | None = None,
    embedder: str = "identity",
    tasks: int | None = None,
    attributes: str = "none",
    dtype: torch.dtype = torch.float32,
) -> tuple[Split, ...]:
    """Open the test data: one `Split` a task, in the order and under the labels of `load`.

    The only door to test data. For the end of a study, after its winner is chosen on validation
    data; nothing that runs during a search may call it. Arguments and errors are those of `load`.
    """
    benchmark, groups = _plan(name, scenario, seed, embedder, tasks, attributes)
    examples = benchmark.source(data_dir, "test")
    first = functools.partial(_first_task, benchmark, data_dir, groups[0], seed)
    x, y = embedders.embed(examples, embedder, dtype, first), examples.y
    everywhere = torch.ones_like(y, dtype=torch.bool)
    return tuple(cut(x, y, everywhere, group, scenario) for group in groups)


def _plan(
    name: str, scenario: str, seed: int, embedder: str, tasks: int | None, attributes: str
) -> tuple[Benchmark, tuple[tuple[int, ...], ...]]:
    """The benchmark and the classes of its tasks, once all that was asked for is known to be."""
    if name not in BENCHMARKS:
        raise unknown("benchmark", name, BENCHMARKS)
    if scenario not in SCENARIOS:
        raise unknown("scenario", scenario, SCENARIOS)
    if attributes not in ATTRIBUTES:
        raise unknown("attributes", attributes, ATTRIBUTES)
    embedders.check(embedder)
    benchmark = BENCHMARKS[name]
    classes = benchmark.tasks * benchmark.classes_per_task
    tasks = benchmark.tasks if tasks is None else tasks
    if tasks < 1 or classes % tasks:
        fit = ", ".join(str(n) for n in range(1, classes + 1) if classes % n == 0)
        raise ValueError(
            f"{name} has {classes} classes: expected a number of tasks that divides them ({fit}), "
            f"got {tasks}"
        )
    size = classes // tasks
    if scenario != "class" and size == 1:
        raise ValueError(
            f"{name} has one class a task, which leaves nothing to decide in the {scenario} "
            "scenario: use the class scenario, or more classes a task"
        )
    if embedder == embedders.BASE_TASK and size == 1:
        raise ValueError(
            f"embedder {embedder!r} learns to tell the classes of the first task, and {name} has "
            "one class a task: use 'identity', or more classes a task"
        )
    if attributes != "none" and benchmark.attributes is None:
        have = ", ".join(b.name for b in BENCHMARKS.values() if b.attributes)
        raise ValueError(
            f"{name} has no class attributes: use 'none', or a benchmark with ({have})"
        )
    if attributes != "none" and scenario == "domain":
        raise ValueError(
            "in the domain scenario an output stands for several classes, so it has no attributes: "
            "use 'none', or another scenario"
        )
    return benchmark, class_groups(tasks, size, seed)


def _first_task(
    benchmark: Benchmark, data_dir: str | Path | None, classes: tuple[int, ...], seed: int
) -> Examples:
    """The training examples of a stream's first task, which has these classes."""
    train = benchmark.source(data_dir, "train")
    held = hold_out(train.y, VALIDATION, seed, "validation")
    rows = torch.isin(train.y, torch.tensor(classes)) & ~held
    return train._replace(x=train.x[rows], y=train.y[rows])
