"""A task stream: what a search may see of a benchmark. It holds no test data."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from trainables.engine.method import Batch, Problem

SCENARIOS = ("class", "task", "domain")


class Split(NamedTuple):
    """Examples of one task for one use: training, validation or test."""

    x: Tensor  # (N, *input)
    y: Tensor  # (N,) int64, an output of the method's last layer


@dataclass(frozen=True, eq=False)
class Task:
    """One task of a stream."""

    classes: tuple[int, ...]
    """Labels of the source. In the domain scenario output i stands for ``classes[i]``; in the
    others the outputs are these labels."""
    train: Split
    validation: Split


@dataclass(frozen=True, eq=False)
class Stream:
    """A sequence of tasks and, at each, which classes (C of them) are there and compete.

    ``current``, ``learned`` and ``seen`` return ``(C,)`` bool, ``rivals`` ``(C, C)`` bool; ``t`` is
    the index of the task being learned, from 0.
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
        """Classes of task t; in the domain scenario all."""
        return self._outputs(t, t + 1)

    def learned(self, t: int) -> Tensor:
        """Classes of the tasks before t; in the domain scenario none at t = 0, then all."""
        return self._outputs(0, t)

    def seen(self, t: int) -> Tensor:
        """Classes of task t and of those before it."""
        return self._outputs(0, t + 1)

    def rivals(self, t: int) -> Tensor:
        """Row c: the logits that compete for an example of class c, see ``Batch.rivals``.

        class: every row the classes seen so far. task: the classes of c's own task, for the
        tasks to come too. domain: all.
        """
        outputs = self.problem.classes
        if self.scenario == "domain":
            return torch.ones(outputs, outputs, dtype=torch.bool)
        if self.scenario == "class":
            return self.seen(t).repeat(outputs, 1)
        own = torch.stack([self.current(i) for i in range(len(self.tasks))])  # (T, C)
        return (own[:, :, None] & own[:, None, :]).any(0)

    def batch(self, t: int, data: Literal["task", "seen"] = "task") -> Batch:
        """All training data of task t ("task") or of the tasks 0..t ("seen"), with the masks."""
        tasks = self.tasks[t : t + 1] if data == "task" else self.tasks[: t + 1]
        x = torch.cat([task.train.x for task in tasks])
        y = torch.cat([task.train.y for task in tasks])
        return Batch(x, y, self.current(t), self.learned(t), self.rivals(t))

    def _outputs(self, start: int, stop: int) -> Tensor:
        """The outputs that stand for the classes of ``tasks[start:stop]``."""
        if self.scenario == "domain":
            return torch.full((self.problem.classes,), stop > start)
        classes = [c for task in self.tasks[start:stop] for c in task.classes]
        mask = torch.zeros(self.problem.classes, dtype=torch.bool)
        mask[torch.tensor(classes, dtype=torch.int64)] = True
        return mask


def cut(x: Tensor, y: Tensor, among: Tensor, classes: tuple[int, ...], scenario: str) -> Split:
    """The examples of some classes, in the order of the source, under the scenario's labels.

    Args:
        x: ``(N, *input)``.
        y: ``(N,)`` int64, labels of the source.
        among: ``(N,)`` bool, the rows that may be taken.
        classes: of one task.
    """
    member = y[:, None] == torch.tensor(classes)  # (N, n)
    rows = member.any(-1) & among
    return Split(x[rows], member[rows].int().argmax(-1) if scenario == "domain" else y[rows])
