"""Tensors that take time to make, kept on disk: a file each, named after what they are made from.

They lie in the user's cache folder, as safetensors; deleting them costs time only.
"""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import platformdirs
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainables.engine.errors import DataError


def digest(*parts: Tensor | object) -> str:
    """24 hexadecimal digits that differ for other tensors (on the CPU) or other plain values."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            found.update(f"{tuple(part.shape)} {part.dtype}".encode())
            found.update(part.contiguous().numpy().tobytes())
        else:
            found.update(repr(part).encode())
    return found.hexdigest()[:24]


def kept(folder: str, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What ``make`` returns, made once; a damaged file is made anew.

    Args:
        folder: in the cache folder.
        name: of the file, without its suffix; holds a `digest` of all that the tensors depend on.
        make: how to make them.

    Raises:
        DataError: the cache folder cannot be written.
    """
    path = platformdirs.user_cache_path("lgm-search") / folder / f"{name}.safetensors"
    if path.is_file():
        try:
            return load_file(path)
        except SafetensorError:
            pass
    made = make()
    try:  # the file is there whole or not at all
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            save_file(made, Path(scratch) / path.name)
            (Path(scratch) / path.name).replace(path)
    except OSError as error:
        raise DataError(
            f"cannot keep {folder} in {path.parent} ({error}): make it writable"
        ) from error
    return made
