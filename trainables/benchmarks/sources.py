"""Where examples come from. A source reads one part, training or test, and never both.

Each source is a function ``(data_dir, part) -> Examples``. What it returns is shared by all callers
in the process: never write to it.
"""

import functools
import gzip
import hashlib
import http.client
import math
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import platformdirs
import torch
from torch import Tensor

from trainables.benchmarks.splits import hold_out
from trainables.engine import noise
from trainables.engine.errors import DataError

Part = Literal["train", "test"]
DIGITS = tuple("0123456789")


class Examples(NamedTuple):
    """One part of a labelled data set, in the order of its source."""

    x: Tensor  # uint8 images (N, H, W) or (N, 3, H, W); float32 vectors (N, D), mostly in [-1, 1]
    y: Tensor  # (N,) int64, an index into class_names
    class_names: tuple[str, ...]
    white: int = 255  # the pixel value of white; 0 is black. Vectors have no use for it.


@functools.cache
def digits(data_dir: str | Path | None, part: Part) -> Examples:
    """1,797 handwritten digits of 8 × 8 pixels, 0..16, as installed with scikit-learn.

    The data set is one array without a test part. 20 % of every class, the same whatever the seed,
    are its test part here. The same people wrote both parts; who wrote what is not recorded.

    Source: E. Alpaydin, C. Kaynak, UCI "Optical Recognition of Handwritten Digits", test part.
    """
    from sklearn.datasets import load_digits  # takes a second to import

    images, labels = load_digits(return_X_y=True)
    x = torch.as_tensor(images, dtype=torch.uint8).view(-1, 8, 8)
    y = torch.as_tensor(labels, dtype=torch.int64)
    rows = hold_out(y, 0.2, 0, "digits test part") == (part == "test")
    return Examples(x[rows], y[rows], DIGITS, white=16)


def mnist(data_dir: str | Path | None, part: Part) -> Examples:
    """60,000 + 10,000 handwritten digits, 28 × 28. LeCun, Cortes, Burges 1998. See `idx`."""
    return idx("MNIST", data_dir, part)


def fashion(data_dir: str | Path | None, part: Part) -> Examples:
    """60,000 + 10,000 clothes, 28 × 28. https://arxiv.org/abs/1708.07747. See `idx`."""
    return idx("FashionMNIST", data_dir, part)


def gaussian(data_dir: str | Path | None, part: Part) -> Examples:
    """Six well separated Gaussian blobs in eight dimensions, for tests; made in memory.

    x = μ_c + 0.15 ε, cut to [-1, 1], with μ_c different corners of the cube {−½, ½}⁸ (at least 1
    apart, so the classes hardly overlap). 50 training and 20 test examples a class.
    """
    classes, dimensions, per_class = 6, 8, {"train": 50, "test": 20}[part]
    g = noise.generator(0, "gaussian means")
    corner = torch.randperm(2**dimensions, generator=g)[:classes]
    means = (corner[:, None] >> torch.arange(dimensions) & 1) - 0.5  # the bits of its number
    y = torch.arange(classes).repeat(per_class)
    epsilon = torch.randn(len(y), dimensions, generator=noise.generator(0, f"gaussian {part}"))
    return Examples((means[y] + 0.15 * epsilon).clamp(-1, 1), y, tuple("abcdef"))


def vectors(count: int) -> Callable[[str | Path | None, Part], Examples]:
    """The source of ``count`` vectors ~ N(0, I_32) of one class, in a fixed order, to be recalled.

    Made in memory. What was not learned by heart cannot be known, so both parts are the same.
    """

    def read(data_dir: str | Path | None, part: Part) -> Examples:
        x = torch.randn(count, 32, generator=noise.generator(0, "vectors"))
        return Examples(x, torch.zeros(count, dtype=torch.int64), ("vector",))

    return read


# ---- files ---------------------------------------------------------------------------------------


def located(
    name: str, files: Sequence[str], data_dir: str | Path | None, fetch: Callable[[Path], object]
) -> Path:
    """The folder that has some files: ``data_dir``, or "data" in the user's cache folder.

    Args:
        name: of the data set, for messages.
        files: their paths in that folder.
        fetch: downloads them to a folder; called if they are in neither.

    Raises:
        DataError: no such ``data_dir``; a file is neither found nor downloaded.
    """
    folders = [platformdirs.user_cache_path("lgm-search") / "data"]
    if data_dir is not None:
        folders.insert(0, Path(data_dir).expanduser())
        if not folders[0].is_dir():
            raise DataError(f"--data-dir {folders[0]}: expected a folder that holds {files[0]}")
    for folder in folders:
        if all((folder / file).is_file() for file in files):
            return folder
    try:
        folders[-1].mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folders[-1]) as scratch:
            fetch(Path(scratch))
            for file in files:
                (folders[-1] / file).parent.mkdir(parents=True, exist_ok=True)
                (Path(scratch) / file).replace(folders[-1] / file)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        missing = next(file for file in files if not (folders[0] / file).is_file())
        reason = " ".join(str(error).split())
        raise DataError(
            f"{name}: {folders[0] / missing} is missing, and the download failed "
            f"({type(error).__name__}: {reason}); put {', '.join(files)} into DIR and pass "
            "--data-dir DIR"
        ) from error
    return folders[-1]


def verified(path: Path, md5: str) -> bytes:
    """The content of a file whose MD5 is known.

    Raises:
        DataError: unreadable, or of another MD5.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise corrupt(path, "a readable file", str(error)) from error
    if (found := hashlib.md5(raw, usedforsecurity=False).hexdigest()) != md5:
        raise corrupt(path, f"the published file, MD5 {md5}", f"{len(raw)} bytes, MD5 {found}")
    return raw


def stamp(path: Path) -> tuple[str, int, int]:
    """What tells a file from others, and from what it was before it was changed."""
    about = path.stat()
    return str(path.resolve()), about.st_size, about.st_mtime_ns


# ---- IDX files -----------------------------------------------------------------------------------


def idx(
    name: Literal["MNIST", "FashionMNIST"], data_dir: str | Path | None, part: Part
) -> Examples:
    """Read one part of a data set that is kept as IDX files, plain or ``.gz``.

    Looked for in ``data_dir/<name>/raw``, which may be read-only, then in the user's cache folder;
    a file found in neither is downloaded to the cache, checked against torchvision's MD5. Only the
    files of ``part`` are looked for, downloaded or opened.

    Raises:
        DataError: no such ``data_dir``; a file is neither found nor downloaded, or is corrupt.
    """
    prefix = {"train": "train", "test": "t10k"}[part]
    images_file = _locate(name, f"{prefix}-images-idx3-ubyte", data_dir)
    labels_file = _locate(name, f"{prefix}-labels-idx1-ubyte", data_dir)
    x, y = _read_pair(images_file, labels_file)
    return Examples(x, y, DIGITS if name == "MNIST" else _fashion_names())


@functools.cache
def _read_pair(images_file: Path, labels_file: Path) -> tuple[Tensor, Tensor]:
    """Images ``(N, H, W)`` uint8 and their labels 0..9 ``(N,)`` int64."""
    x, y = read_idx(images_file, 3), read_idx(labels_file, 1).long()
    if len(x) != len(y):
        raise corrupt(images_file, f"{len(y)} images, as {labels_file} has labels", f"{len(x)}")
    if y.max() > 9:
        raise corrupt(labels_file, "labels 0 to 9", f"{y.max()}")
    if (counts := y.bincount(minlength=10)).min() < 2:
        found = f"{counts.min()} of class {counts.argmin()}"
        raise corrupt(labels_file, "at least 2 examples of each of 10 classes", found)
    return x, y


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Read unsigned bytes from an IDX file, plain or ``.gz``, to a tensor of so many dimensions.

    The format: two zero bytes, the type (8: unsigned byte), the number of dimensions, the size of
    each as a big-endian 32-bit integer, the bytes.

    Raises:
        DataError: unreadable, another type or number of dimensions, empty, or another length than
            the header says.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise corrupt(path, "a readable file", f"{type(error).__name__}: {error}") from error
    magic = bytes([0, 0, 8, dimensions])
    if raw[:4] != magic:
        raise corrupt(path, f"an IDX file that begins with {magic.hex()}", raw[:4].hex())
    body = 4 + 4 * dimensions
    shape = np.frombuffer(raw[4:body].ljust(4 * dimensions, b"\0"), dtype=">u4").tolist()
    if len(raw) - body != math.prod(shape) or 0 in shape:
        size = " × ".join(map(str, shape))
        raise corrupt(path, f"{size} bytes, as its header says", f"{max(0, len(raw) - body)}")
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=body).view(shape)


def corrupt(path: Path, expected: str, found: str) -> DataError:
    return DataError(
        f"{path}: expected {expected}, found {found}; replace the file, or name a folder with a "
        "good copy with --data-dir"
    )


def _locate(name: str, file: str, data_dir: str | Path | None) -> Path:
    """The path of an IDX file, downloaded if it has to be."""
    folders = [platformdirs.user_cache_path("lgm-search") / "data" / name / "raw"]
    if data_dir is not None:
        root = Path(data_dir).expanduser()
        if not root.is_dir():
            raise DataError(f"--data-dir {root}: expected a folder that holds {name}/raw/{file}.gz")
        folders.insert(0, root / name / "raw")
    for folder in folders:
        for path in (folder / file, folder / f"{file}.gz"):
            if path.is_file():
                return path
    try:
        return _download(name, f"{file}.gz", folders[-1])
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        found = "; ".join(f"{folder} {_contents(folder)}" for folder in folders)
        reason = " ".join(str(error).split())
        raise DataError(
            f"{name}: expected {file} or {file}.gz; {found}; the download failed "
            f"({type(error).__name__}: {reason}); put the files of {name} into DIR/{name}/raw and "
            "pass --data-dir DIR"
        ) from error


def _contents(folder: Path) -> str:
    if not folder.is_dir():
        return "does not exist"
    return "holds " + (", ".join(sorted(f.name for f in folder.iterdir())[:8]) or "nothing")


def _download(name: str, file: str, folder: Path) -> Path:
    """Fetch one file of a torchvision data set; it appears under its name whole or not at all."""
    from torchvision import datasets
    from torchvision.datasets.utils import download_url

    dataset = getattr(datasets, name)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        for i, mirror in enumerate(dataset.mirrors):
            try:
                download_url(mirror + file, scratch, file, dict(dataset.resources)[file])
                break
            except (OSError, RuntimeError, http.client.HTTPException):
                if i == len(dataset.mirrors) - 1:
                    raise
        return (Path(scratch) / file).replace(folder / file)


def _fashion_names() -> tuple[str, ...]:
    from torchvision.datasets import FashionMNIST

    return tuple(FashionMNIST.classes)
