"""Tensors that take time to make, kept on disk: a file each, named after what they are made from.

They lie in the user's cache folder, as safetensors; deleting them costs time only. What is read
from them is mapped into memory: the processes of a machine have it in common.
"""

import contextlib
import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import platformdirs
from filelock import FileLock
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


def kept(
    folder: str, name: str, make: Callable[[], dict[str, Tensor]], last: int | None = None
) -> dict[str, Tensor]:
    """What ``make`` returns, made once; a damaged file is made anew.

    Other processes that ask for the same wait while one makes it.

    Args:
        folder: in the cache folder.
        name: of the file, without its suffix; holds a `digest` of all that the tensors depend on.
        make: how to make them.
        last: how many files the folder may hold, those used last; None for all.

    Raises:
        DataError: the cache folder cannot be written, or is full.
    """
    path = platformdirs.user_cache_path("lgm-search") / folder / f"{name}.safetensors"
    if (found := _read(path)) is not None:
        with contextlib.suppress(OSError):  # of somebody else
            path.touch()
        return found
    lock = FileLock(path.with_name(".lock"))
    with _writing(folder, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        if (found := _read(path)) is None:
            made = make()  # what it cannot read is not for us to say
            with _writing(folder, path), tempfile.TemporaryDirectory(dir=path.parent) as scratch:
                save_file(made, Path(scratch) / path.name)
                (Path(scratch) / path.name).replace(path)  # there whole or not at all
                found = load_file(path)
                others = sorted(path.parent.glob("*.safetensors"), key=lambda p: p.stat().st_mtime)
                for old in others[: -last if last else 0]:  # who has mapped it keeps it
                    old.unlink()
    finally:
        lock.release()
    return found


@contextlib.contextmanager
def _writing(folder: str, path: Path):
    """What cannot be written, in one line."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"cannot keep {folder} in {path.parent} ({error}): make it writable, and make room"
        ) from error


def _read(path: Path) -> dict[str, Tensor] | None:
    """What a file holds, if it is there and whole."""
    try:
        return load_file(path) if path.is_file() else None
    except SafetensorError:
        return None
