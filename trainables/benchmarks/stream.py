"""A task stream: what a search may see of a benchmark. It holds no test data."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trainables.benchmarks.cache import digest, kept
from trainables.engine.method import Batch, Problem

SCENARIOS = ("class", "task", "domain")
SHARED = 2**28  # bytes of inputs from which the processes of a machine have them in common
FILES = 3  # that hold them, of the streams used last


class Split:
    """Examples of one task for one use: training, validation or test.

    Args:
        x: ``(N, *input)``, or what makes them when they are first asked for: whoever only counts
            examples never holds them.
        y: ``(N,)`` int64, each an output of the method's last layer.
        key: returns what tells x from all other inputs; None where nothing does.
    """

    def __init__(
        self, x: Tensor | Callable[[], Tensor], y: Tensor, key: Callable[[], str] | None = None
    ):
        self._x, self.y, self.key = x, y, key

    @property
    def x(self) -> Tensor:
        if not isinstance(self._x, Tensor):
            self._x = self._x()
        return self._x

    def hold(self, x: Tensor) -> None:
        """Have this tensor, which is the same, for x from now on."""
        self._x = x


@dataclass(frozen=True, eq=False)
class Task:
    """One task of a stream."""

    classes: tuple[int, ...]
    """Labels of the source."""
    outputs: tuple[int, ...]
    """What stands for each of them in the method's last layer, and in ``y``."""
    train: Split
    validation: Split


@dataclass(frozen=True, eq=False)
class Stream:
    """A sequence of tasks and, at each, which outputs (C of them) are in use and compete.

    ``current``, ``learned`` and ``seen`` return ``(C,)`` bool, ``rivals`` ``(C, C)`` bool; ``t`` is
    the index of the task being learned, from 0. In the domain scenario the tasks share outputs, in
    the others each has its own, and an output is as good as a class.
    """

    name: str
    scenario: str
    """One of ``SCENARIOS``."""
    seed: int
    problem: Problem
    class_names: tuple[str, ...]
    """A name for each output; in the domain scenario the classes that share it, "0 / 6 / 3"."""
    tasks: tuple[Task, ...]

    def current(self, t: int) -> Tensor:
        """Outputs of task t."""
        return self._outputs(t, t + 1)

    def learned(self, t: int) -> Tensor:
        """Outputs of the tasks before t."""
        return self._outputs(0, t)

    def seen(self, t: int) -> Tensor:
        """Outputs of task t and of those before it."""
        return self._outputs(0, t + 1)

    def rivals(self, t: int) -> Tensor:
        """Row c: the logits that compete for an example of output c, see ``Batch.rivals``.

        class, domain: every row the outputs seen so far (in the domain scenario these are all
        from the first task on, unless a later task has more classes). task: the outputs of c's own
        task, for the tasks to come too.
        """
        if self.scenario != "task":
            return self.seen(t).repeat(self.problem.classes, 1)
        return self.own()

    def own(self) -> Tensor:
        """Row c: the outputs of c's own task, whichever the scenario: who is told the task, chooses
        among these."""
        mask = torch.zeros(self.problem.classes, self.problem.classes, dtype=torch.bool)
        for i in range(len(self.tasks)):
            own = self.current(i)
            mask |= own[:, None] & own
        return mask

    def batch(self, t: int, data: Literal["task", "seen"] = "task") -> Batch:
        """All training data of task t ("task") or of the tasks 0..t ("seen"), with the masks."""
        sizes = [len(task.train.y) for task in self.tasks]
        start, stop = 0 if data == "seen" else sum(sizes[:t]), sum(sizes[: t + 1])
        x, y = (whole[start:stop] for whole in self._joined)
        return Batch(x, y, self.current(t), self.learned(t), self.rivals(t))

    @functools.cached_property
    def _joined(self) -> tuple[Tensor, Tensor]:
        """The training data of all tasks, one after the other: they are in memory once, and what
        tasks and batches hold are parts of them. Where they are large, that is once a machine: a
        file is mapped by all its processes."""
        splits = [task.train for task in self.tasks]
        y, sizes = torch.cat([split.y for split in splits]), [len(split.y) for split in splits]

        def joined() -> Tensor:
            x = torch.empty(len(y), *self.problem.input_shape, dtype=self.problem.dtype)
            for split, part in zip(splits, x.split(sizes), strict=True):
                split.hold(part.copy_(split.x))
            return x

        keys = [split.key for split in splits if split.key is not None]
        example = math.prod(self.problem.input_shape) * self.problem.dtype.itemsize
        if len(keys) < len(splits) or len(y) * example < SHARED:
            return joined(), y
        name = digest(*(key() for key in keys))
        x = kept("streams", name, lambda: {"x": joined()}, last=FILES)["x"]
        for split, part in zip(splits, x.split(sizes), strict=True):
            split.hold(part)
        return x, y

    def _outputs(self, start: int, stop: int) -> Tensor:
        """The outputs of ``tasks[start:stop]``."""
        found = [i for task in self.tasks[start:stop] for i in task.outputs]
        mask = torch.zeros(self.problem.classes, dtype=torch.bool)
        mask[torch.tensor(found, dtype=torch.int64)] = True
        return mask


def cut(
    x: Callable[[Tensor], Tensor],
    y: Tensor,
    among: Tensor,
    classes: tuple[int, ...],
    outputs: tuple[int, ...],
    key: Callable[[], str] | None = None,
) -> Split:
    """The examples of some classes, in the order of the source.

    Args:
        x: makes inputs ``(n, *input)`` from the numbers ``(n,)`` of their rows.
        y: ``(N,)`` int64, labels of the source.
        among: ``(N,)`` bool, the rows that may be taken.
        classes: of one task.
        outputs: the new labels of these classes.
        key: returns what tells the inputs of all rows from all others, if anything does.
    """
    member = y[:, None] == torch.tensor(classes)  # (N, n)
    rows = (member.any(-1) & among).nonzero()[:, 0]
    labels = torch.tensor(outputs)[member[rows].int().argmax(-1)]
    own = key and (lambda: digest(key(), rows))
    return Split(functools.partial(x, rows), labels, own)
