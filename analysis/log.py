"""A write-ahead log: one JSON object a line, appended whole or not at all."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np


class RecordError(Exception):
    """The record cannot be written or read; the message is one line that says what to do."""


class Log:
    """The end of a log file, open for appending.

    Args:
        path: of the file; made, with its directory, if it does not exist.
        sound: bytes of it to keep, as ``lines`` found them; a line torn by a crash goes.

    Raises:
        RecordError: here and in the methods, if the disk is full or not writable.
    """

    def __init__(self, path: Path, sound: int):
        self.path = path
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)
            self._file.truncate(sound)

    def append(self, line: bytes) -> None:
        """Add a line. It outlives this process; a crash of the machine only after ``sync``."""
        with writing(self.path):
            end = self._file.seek(0, os.SEEK_END)
            try:
                while line:
                    line = line[self._file.write(line) :]
            except OSError:
                self._file.truncate(end)  # no half line for the next one to be glued to
                raise

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        with writing(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def lines(path: Path) -> list[bytes]:
    """The complete lines of a log, with their ends; none if there is no file."""
    if not path.exists():
        return []
    found = path.read_bytes().splitlines(keepends=True)
    return found if not found or found[-1].endswith(b"\n") else found[:-1]


def encode(event: str, **content: Any) -> bytes:
    """One line of a log.

    Args:
        event: its kind.
        content: mappings, sequences, arrays, dates and scalars.

    Raises:
        TypeError: for what JSON cannot hold.
    """
    return json.dumps(_plain({"event": event, **content}), allow_nan=False).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """The inverse of ``encode``; dates remain text, tuples and arrays are lists."""
    return json.loads(line, object_hook=lambda o: float(o["$float"]) if "$float" in o else o)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the operating system refuses while ``path`` is written, as a ``RecordError``."""
    try:
        yield
    except OSError as error:
        raise RecordError(
            f"cannot write {path} ({error.strerror or error}): nothing before it is lost; free"
            f" space or make it writable, then run --resume {path.parent}"
        ) from error


def _plain(value: Any) -> Any:
    """``value`` as JSON holds it; JSON has no NaN and infinities, they become {"$float": "nan"}."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if isinstance(value, str):
        return value.encode(errors="replace").decode()  # lone surrogates, as of odd file names
    return value.isoformat() if isinstance(value, datetime) else value
