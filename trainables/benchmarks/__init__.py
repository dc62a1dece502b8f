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
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from trainables.benchmarks import changes, cub, embedders, images, sources, xlsa17
from trainables.benchmarks.cache import digest
from trainables.benchmarks.sources import Examples, Part
from trainables.benchmarks.splits import class_groups, hold_out, task_groups
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
    """A data set cut into tasks: no class twice, or, where it is changed, all in every task."""

    name: str
    source: Callable[[str | Path | None, Part], Examples]
    classes: tuple[int, ...] | Callable[[str | Path | None], tuple[int, ...]]
    """How many classes each task has; where that depends on the files, a function of data_dir."""
    description: str
    attributes: Callable[[str | Path | None], Tensor] | None = None
    """``data_dir`` -> (C, A), a description of every class in numbers, where there is one."""
    recall: bool = False
    """Whether the training data are the validation data too. Their source has one part only."""
    natural: bool = False
    """Whether classes that follow each other in the source make a task. Tasks are shuffled then,
    else classes."""
    change: Callable[[Tensor, int, int, int], Tensor] | None = None
    """How a task sees the images of all classes, a function of ``benchmarks.changes``."""


def split(name: str, source, classes: tuple[int, ...], what: str, attributes=None) -> Benchmark:
    """A benchmark ``split_name``, for short."""
    return Benchmark(f"split_{name}", source, classes, what, attributes)


DIGITS = "1,797 digits of 8 × 8 pixels"
MNIST = "70,000 digits of 28 × 28 pixels"
FASHION = "70,000 clothes of 28 × 28 pixels"
CIFAR = "60,000 colour images of 32 × 32 pixels"
SVHN = "99,289 house numbers' digits of 32 × 32 pixels"
TINY = "110,000 colour images of 64 × 64 pixels"
CUB = "11,788 birds as 2048 features"

BENCHMARKS = {
    b.name: b
    for b in (
        split("digits", sources.digits, (2,) * 5, DIGITS),
        split("digits_10", sources.digits, (1,) * 10, DIGITS),
        split("mnist", sources.mnist, (2,) * 5, MNIST),
        split("mnist_10", sources.mnist, (1,) * 10, MNIST),
        split("fashion", sources.fashion, (2,) * 5, FASHION),
        split("fashion_10", sources.fashion, (1,) * 10, FASHION),
        Benchmark(
            "permuted_mnist", sources.mnist, (10,) * 10,
            f"{MNIST}, permuted in each task", change=changes.permuted,
        ),
        Benchmark(
            "permuted_mnist_17", sources.mnist, (10,) * 17,
            f"{MNIST}, permuted in each task", change=changes.permuted,
        ),
        Benchmark(
            "rotated_mnist", sources.mnist, (10,) * 10,
            f"{MNIST}, rotated in each task", change=changes.rotated,
        ),
        split("cifar10", images.cifar10, (2,) * 5, CIFAR),
        split("cifar10_10", images.cifar10, (1,) * 10, CIFAR),
        split("cifar100", images.cifar100, (10,) * 10, CIFAR),
        split("cifar100_20", images.cifar100, (5,) * 20, CIFAR),
        split("cifar100_50_5", images.cifar100, (50,) + (5,) * 10, CIFAR),
        split("svhn", images.svhn, (2,) * 5, SVHN),
        split("svhn_10", images.svhn, (1,) * 10, SVHN),
        Benchmark(
            "split_omniglot", images.omniglot, tuple(images.ALPHABETS.values()),
            "32,460 characters of 28 × 28 pixels, a task an alphabet", natural=True,
        ),
        split("tiny_imagenet", images.tiny_imagenet, (20,) * 10, TINY),
        split("tiny_imagenet_100_20", images.tiny_imagenet, (100,) + (20,) * 5, TINY),
        Benchmark(
            "folder", images.folder, images.pairs,
            "train/CLASS/* and test/CLASS/* in --data-dir, as 64 × 64 pixels",
        ),
        Benchmark(
            "cub100", cub.photographs, (10,) * 10, "5,902 birds as 512 features", cub.attributes
        ),
        Benchmark("cub200", xlsa17.cub, (20,) * 10, CUB, xlsa17.cub_attributes),
        Benchmark("cub200_100_20", xlsa17.cub, (100,) + (20,) * 5, CUB, xlsa17.cub_attributes),
        Benchmark(
            "awa2", xlsa17.awa2, (5,) * 10, "37,322 animals as 2048 features",
            xlsa17.awa2_attributes,
        ),
        Benchmark("gaussian", sources.gaussian, (2,) * 3, "420 points in 8 dimensions, for tests"),
        Benchmark(
            "memorize", sources.vectors(10_000), (1,), "10,000 vectors to store", recall=True
        ),
        Benchmark(
            "memorize_1000", sources.vectors(1000), (1,), "1,000 vectors to store", recall=True
        ),
    )
}  # fmt: skip


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
        embedder: "identity" (pixels in [-1, 1]), "unit" (in [0, 1]), "base_task" (features that the
            first task teaches), or a torchvision classification network, "resnet18", or one of its
            nodes, "resnet18.layer3", whose features are extracted once and kept; see ``embedders``.
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
    benchmark, groups = _plan(name, scenario, seed, data_dir, embedder, tasks, attributes)
    examples = benchmark.source(data_dir, "train")
    y = examples.y
    inputs = _inputs(benchmark, examples, groups, seed, data_dir, embedder, dtype)
    if benchmark.recall:
        trained = held = torch.ones_like(y, dtype=torch.bool)
    else:
        held = hold_out(y, VALIDATION, seed, "validation")
        trained = ~held
    outputs = _outputs(benchmark, groups, scenario)
    keys = _keys(benchmark, examples, len(groups), seed, embedder, dtype)
    train, validation = (
        list(map(cut, inputs, repeat(y), repeat(rows), groups, outputs, keys))
        for rows in (trained, held)
    )
    cuts = tuple(map(Task, groups, outputs, train, validation))
    names = _output_names(examples.class_names, cuts)
    one = inputs[0](torch.zeros(1, dtype=torch.int64))
    longest = max(len(task.train.y) for task in cuts)
    problem = Problem(tuple(one.shape[1:]), len(names), dtype, examples=longest)
    if benchmark.attributes and (told := ATTRIBUTES[attributes]):
        known = normalize(benchmark.attributes(data_dir)).to(dtype)
        problem = problem._replace(attributes=known, attributes_in=told)
    return Stream(name, scenario, seed, problem, names, cuts)


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
    benchmark, groups = _plan(name, scenario, seed, data_dir, embedder, tasks, attributes)
    examples = benchmark.source(data_dir, "test")
    y = examples.y
    inputs = _inputs(benchmark, examples, groups, seed, data_dir, embedder, dtype)
    everywhere = torch.ones_like(y, dtype=torch.bool)
    outputs = _outputs(benchmark, groups, scenario)
    return tuple(map(cut, inputs, repeat(y), repeat(everywhere), groups, outputs))


def _plan(
    name: str,
    scenario: str,
    seed: int,
    data_dir: str | Path | None,
    embedder: str,
    tasks: int | None,
    attributes: str,
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
    own = benchmark.classes(data_dir) if callable(benchmark.classes) else benchmark.classes
    groups = _groups(benchmark, own, len(own) if tasks is None else tasks, seed)
    if scenario != "class" and min(map(len, groups)) == 1:
        raise ValueError(
            f"{name} has one class a task, which leaves nothing to decide in the {scenario} "
            "scenario: use the class scenario, or more classes a task"
        )
    if embedder == embedders.BASE_TASK and len(groups[0]) == 1:
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
    return benchmark, groups


def _groups(
    benchmark: Benchmark, own: tuple[int, ...], tasks: int, seed: int
) -> tuple[tuple[int, ...], ...]:
    """The classes of each of so many tasks.

    Args:
        own: how many classes each task has unless another number of tasks is asked for.
    """
    if benchmark.change:
        if tasks < 1:
            raise ValueError(f"{benchmark.name}: expected at least one task, got {tasks}")
        return (tuple(range(own[0])),) * tasks
    if tasks == len(own):
        return task_groups(own, seed) if benchmark.natural else class_groups(own, seed)
    if benchmark.natural:
        raise ValueError(
            f"{benchmark.name} has {len(own)} tasks of its own: expected that number, got {tasks}"
        )
    classes = sum(own)
    if tasks < 1 or classes % tasks:
        fit = ", ".join(str(n) for n in range(1, classes + 1) if classes % n == 0)
        raise ValueError(
            f"{benchmark.name} has {classes} classes: expected a number of tasks that divides them "
            f"({fit}), got {tasks}"
        )
    return class_groups((classes // tasks,) * tasks, seed)


def _outputs(
    benchmark: Benchmark, groups: tuple[tuple[int, ...], ...], scenario: str
) -> list[tuple[int, ...]]:
    """The outputs that stand for the classes of each task.

    In the domain scenario tasks share the first ones. In the others they are the labels of the
    source, or, where every task has all classes, C of its own for each task.
    """
    if scenario == "domain":
        return [tuple(range(len(group))) for group in groups]
    if not benchmark.change:
        return list(groups)
    return [tuple(t * len(group) + c for c in group) for t, group in enumerate(groups)]


def _output_names(class_names: tuple[str, ...], tasks: tuple[Task, ...]) -> tuple[str, ...]:
    """The classes that an output stands for; the task too, where a class has an output in each."""
    found, places = defaultdict(list), defaultdict(list)
    for t, task in enumerate(tasks):
        for c, i in zip(task.classes, task.outputs, strict=True):
            found[i].append(class_names[c])
            places[c].append((t, i))
    names = {i: " / ".join(dict.fromkeys(same)) for i, same in found.items()}
    for where in places.values():
        if len({i for _, i in where}) > 1:
            names |= {i: f"{names[i]}, task {t}" for t, i in where}
    return tuple(names[i] for i in range(len(names)))


def _inputs(
    benchmark: Benchmark,
    examples: Examples,
    groups: tuple[tuple[int, ...], ...],
    seed: int,
    data_dir: str | Path | None,
    embedder: str,
    dtype: torch.dtype,
) -> list[Callable[[Tensor], Tensor]]:
    """What makes the inputs of each task from the numbers of their rows.

    Pixels are made when they are asked for, and only those; features of a network at once.
    """
    first = functools.partial(_first_task, benchmark, data_dir, groups, seed)

    tasks = range(len(groups))

    def seen(t: int, rows: Tensor | slice) -> Examples:
        return _changed(benchmark, examples._replace(x=examples.x[rows]), t, len(groups), seed)

    def pixels(t: int, rows: Tensor) -> Tensor:
        return embedders.pixels(seen(t, rows), dtype, embedders.PIXELS[embedder])

    if embedder in embedders.PIXELS:
        return [functools.partial(pixels, t) for t in tasks]
    each = [seen(t, slice(None)) for t in (tasks if benchmark.change else tasks[:1])]
    made = [embedders.embed(whole, embedder, dtype, first) for whole in each]
    return [made[t % len(made)].__getitem__ for t in tasks]


def _keys(
    benchmark: Benchmark,
    examples: Examples,
    tasks: int,
    seed: int,
    embedder: str,
    dtype: torch.dtype,
) -> list[Callable[[], str] | None]:
    """What tells the pixels that each task sees from all others; features are kept elsewhere."""
    if embedder not in embedders.PIXELS:
        return [None] * tasks
    data = functools.cache(lambda: digest(examples.x, examples.white))
    change = [(benchmark.name, t, tasks, seed) if benchmark.change else () for t in range(tasks)]
    scale = embedders.PIXELS[embedder], str(dtype)
    return [lambda one=one: digest(1, data(), one, scale) for one in change]


def _changed(benchmark: Benchmark, examples: Examples, t: int, tasks: int, seed: int) -> Examples:
    """Examples as task t sees them."""
    if benchmark.change is None:
        return examples
    return examples._replace(x=benchmark.change(examples.x, t, tasks, seed))


def _first_task(
    benchmark: Benchmark,
    data_dir: str | Path | None,
    groups: tuple[tuple[int, ...], ...],
    seed: int,
) -> Examples:
    """The training examples of a stream's first task."""
    train = benchmark.source(data_dir, "train")
    held = hold_out(train.y, VALIDATION, seed, "validation")
    rows = torch.isin(train.y, torch.tensor(groups[0])) & ~held
    train = train._replace(x=train.x[rows], y=train.y[rows])
    return _changed(benchmark, train, 0, len(groups), seed)
