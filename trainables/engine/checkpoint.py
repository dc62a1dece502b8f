"""A trial between two tasks, on disk: tensors and JSON in one safetensors file, no pickle."""

import contextlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_unflatten

from trainables.engine.method import State

FORMAT = "1"


class CheckpointError(Exception):
    """A file of tensors that cannot be used; the message says which one and why."""


def save(path: Path, state: State, about: dict[str, Any]) -> None:
    """Write a state and what is known about it, whole or not at all.

    Args:
        path: the file; its folder is made if need be.
        state: a tree of tensors.
        about: anything JSON can hold (tasks learned, accuracy rows, ...).

    Raises:
        CheckpointError: if it cannot be written, to a full disk say. An older file stays.
    """
    named, _ = tree_flatten_with_path(state)
    # Tensors that share memory (a snapshot and its original) are refused by the format: copy.
    tensors = {keystr(key): leaf.detach().cpu().clone().contiguous() for key, leaf in named}
    write(path, tensors, {"format": FORMAT, "about": json.dumps(about)})


def write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write named tensors on the CPU, each with memory of its own, whole or not at all.

    Raises:
        CheckpointError: as ``save``.
    """
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, part, metadata)
        part.replace(path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise CheckpointError(f"cannot write {path}: {error}") from error


def load(path: Path, like: State) -> tuple[State, dict[str, Any]]:
    """Read back what ``save`` wrote.

    Args:
        path: the file.
        like: a state of the same method and shape; gives structure, dtypes and devices.

    Raises:
        CheckpointError: if the file is missing, damaged, or of another method or shape.
    """
    named, structure = tree_flatten_with_path(like)
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            stored = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read checkpoint {path}: {error}") from error
    if about.get("format") != FORMAT or "about" not in about:
        raise CheckpointError(f"checkpoint {path} is not of format {FORMAT}: {about}")
    leaves = []
    for key, leaf in named:
        found = stored.pop(keystr(key), None)
        if found is None or found.shape != leaf.shape or found.dtype != leaf.dtype:
            wanted = f"{keystr(key)} {tuple(leaf.shape)} {leaf.dtype}"
            got = "nothing" if found is None else f"{tuple(found.shape)} {found.dtype}"
            raise CheckpointError(f"checkpoint {path}: expected {wanted}, found {got}")
        leaves.append(found.to(leaf.device))
    if stored:
        raise CheckpointError(f"checkpoint {path} holds unknown tensors: {sorted(stored)}")
    return tree_unflatten(leaves, structure), json.loads(about["about"])


def size_in_bytes(tree) -> int:
    """Bytes of all tensors of a tree, each storage counted as often as it is named."""
    leaves, _ = tree_flatten_with_path(tree)
    return sum(leaf.numel() * leaf.element_size() for _, leaf in leaves if torch.is_tensor(leaf))
