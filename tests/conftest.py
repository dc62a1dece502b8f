"""What several tests share: a small task stream in float64, tiny shapes, one thread."""

from dataclasses import replace
from typing import Any

import optuna
import pytest
import torch
from torch.utils._pytree import tree_map

from trainables import benchmarks
from trainables.benchmarks import Stream

F64 = torch.float64
EXACTLY: dict[str, Any] = {"rtol": 0.0, "atol": 0.0}  # for torch.testing.assert_close
# By the last part of a Shape's field.
TINY = {"hidden": 8, "latent": 3, "code": 4, "batch_size": 8, "chunk": 3, "memory_size": 20}

torch.set_num_threads(1)
optuna.logging.set_verbosity(optuna.logging.WARNING)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(module):
    """The Shape of a method with every width cut down."""
    sizes = {f: n for f in module.Shape._fields for end, n in TINY.items() if f.endswith(end)}
    return module.Shape(**sizes)


def first_tasks(stream: Stream, count: int) -> Stream:
    return replace(stream, tasks=stream.tasks[:count])


def clone(tree):
    return tree_map(torch.clone, tree)


@pytest.fixture(scope="session")
def blobs() -> Stream:
    """Three tasks of two Gaussian classes each in eight dimensions, class-incremental."""
    return benchmarks.load("gaussian", dtype=F64)


@pytest.fixture(scope="session")
def blobs_by_task() -> Stream:
    """The same, task-incremental."""
    return benchmarks.load("gaussian", scenario="task", dtype=F64)
