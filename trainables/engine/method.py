"""The contract of a method: pure functions over named tuples of tensors.

A method is written for one trial (a *lane*) and trained for many: ``engine.fuse`` adds the lane
axis. Everything marked "inside a lane" therefore obeys the rules of ``torch.func.vmap``: no
``.item()``, no ``if tensor``, no writes in place, no random numbers of its own.

Shape letters: B batch, N examples of a task, C classes, D input, Z latent, K lanes, S steps.
"""

import difflib
from collections.abc import Callable, Mapping
from types import ModuleType, SimpleNamespace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

Params = dict[str, Tensor]
Scalar = Tensor | float  # a 0-dim tensor inside a lane
State = Any  # a NamedTuple of tensors and dicts of tensors; one per method
Hyper = Any  # a NamedTuple of scalars; one per method. Text is read outside the lanes only
Shape = Any  # a NamedTuple of static values; one per method. Trials of equal Shape are fused
Noise = Any  # a tree of tensors, drawn outside the lanes
Logs = dict[str, Tensor]  # 0-dim tensors, one per loss term


class Problem(NamedTuple):
    """What a benchmark tells a method before the first task."""

    input_shape: tuple[int, ...]  # (D,), or (channels, height, width)
    classes: int  # size of the output layer, C
    dtype: torch.dtype = torch.float32
    attributes: Tensor | None = None  # (C, A) of each class, where a benchmark has them
    attributes_in: tuple[str, ...] = ()  # who is told them: "generator", "classifier"
    examples: int = 0  # training examples of the largest task; 0 where that is not known
    device: str = "cpu"  # where to train; ``attributes`` are there

    @property
    def codes(self) -> Tensor:
        """``(C, K)``, what a generator is told of each class: its attributes, or one-hot.

        A learned embedding of the class before a linear layer is the same function as one-hot.
        """
        if "generator" in self.attributes_in and self.attributes is not None:
            return self.attributes
        return torch.eye(self.classes, dtype=self.dtype, device=self.device)


class Batch(NamedTuple):
    """Examples and the classes around them: a minibatch, or a whole task."""

    x: Tensor  # (B, *input)
    y: Tensor  # (B,) int64
    current: Tensor  # (C,) bool: classes of the task being learned
    learned: Tensor  # (C,) bool: classes of earlier tasks
    rivals: Tensor  # (C, C) bool: row c holds the logits that compete for an example of class c.
    #                 This mask *is* the scenario: all seen classes (class-incremental), those of
    #                 the example's own task (task-incremental), all (domain-incremental).

    @property
    def seen(self) -> Tensor:
        """(C,) bool: classes of this task and of earlier ones."""
        return self.current | self.learned


class Method(NamedTuple):
    """One continual learner, built for one ``Problem`` and one ``Shape``.

    ``schedule`` and ``draw`` run outside the lanes, on plain numbers: a lane's program for a task
    is a list of (phase, number of steps), and lanes that are in the same phase step together.
    """

    init: Callable[[torch.Generator], State]
    schedule: Callable[[Hyper, int], list[tuple[str, int]]]  # (hyper, task index) -> program
    steps: Mapping[str, Callable]  # phase -> (state, batch, hyper, noise) -> (state, logs); in lane
    predict: Callable[[State, Tensor], Tensor]  # (state, x) -> logits (B, C); inside a lane
    # (state, fresh, task, hyper) -> state, inside a lane. ``fresh`` is a newly initialised State
    # from (seed, task): what a method resets, it takes from there.
    begin_task: Callable[[State, State, Batch, Hyper], State] = lambda state, fresh, task, hyper: (
        state
    )
    # (state, task, hyper, noise) -> state, inside a lane; ``task`` holds all training data of the
    # task, ``noise`` is one step's draw for the phase "end_task".
    end_task: Callable[[State, Batch, Hyper, Noise], State] = lambda state, task, hyper, noise: (
        state
    )
    # (generator, phase, S, task, hyper) -> noise whose leaves have a leading axis S.
    draw: Callable[[torch.Generator, str, int, Batch, Hyper], Noise] = (
        lambda generator, phase, steps, task, hyper: {}
    )
    # (state, labels (B,), z (B, Z)) -> x (B, *input), inside a lane; generative methods only.
    sample: Callable[[State, Tensor, Tensor], Tensor] | None = None
    latent: int = 0  # Z, of the z ~ N(0, I) that ``sample`` takes
    # (state, x (B, *input)) -> x̂ (B, *input), inside a lane; what an autoencoder makes of x.
    reconstruct: Callable[[State, Tensor], Tensor] | None = None
    # (params, state, batch, hyper, noise) -> (loss, terms), inside a lane: what the step
    # "classifier" descends in ``state.classifier``; an embedder trained in front of the method
    # descends it too.
    classifier_loss: Callable | None = None
    # (state, x (B, *input)) -> (B, F), inside a lane: the features that ``sample`` makes, where an
    # embedder stands in front of the method; else x itself.
    features: Callable[[State, Tensor], Tensor] | None = None
    # The part of a state that outlives a task. Its bytes are the method's memory.
    carried: Callable[[State], Any] = lambda state: state
    batch_size: int = 64
    data: Literal["task", "seen"] = "task"  # "seen": trained on all data so far (joint training)


def configure(module: ModuleType | SimpleNamespace, config: Mapping[str, Any]) -> tuple[Any, Hyper]:
    """Split a configuration into a method's ``Shape`` and ``Hyper``.

    Args:
        module: a method, with its named tuples ``Shape`` (static) and ``Hyper`` (scalars).
        config: a flat mapping of names to values; what it leaves out keeps the method's default.

    Raises:
        ValueError: for a name that is no field of either, or a field that has no value.
    """
    known = module.Shape._fields + module.Hyper._fields
    for name in config:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{module.__name__} has no hyperparameter {name!r}{hint}")
    parts = []
    for kind in (module.Shape, module.Hyper):
        given = {name: config[name] for name in kind._fields if name in config}
        missing = set(kind._fields) - set(given) - set(kind._field_defaults)
        if missing:
            raise ValueError(f"{module.__name__} needs a value for {', '.join(sorted(missing))}")
        parts.append(kind(**given))
    return parts[0], parts[1]
