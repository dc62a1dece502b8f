"""A hundred kinds of birds: features of photographs, and what people saw in each kind.

A subset of CUB-200-2011. It may be used for research only and is not downloaded; the files are

    CUB100/cub100_squeezenet_fire9_gap512.npz                        features of 5,902 photographs
    CUB_200_2011/classes.txt                                         number and name of 200 kinds
    CUB_200_2011/attributes/class_attribute_labels_continuous.txt    200 kinds × 312 attributes

in ``data_dir``. The last one is opened only where attributes are asked for.

Source: Wah et al. 2011, "The Caltech-UCSD Birds-200-2011 Dataset", CNS-TR-2011-001.
"""

import functools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainables.benchmarks.sources import Examples, Part, corrupt
from trainables.engine.errors import DataError

FEATURES = "CUB100/cub100_squeezenet_fire9_gap512.npz"
CLASSES = "CUB_200_2011/classes.txt"
SCALE = 12.0  # deviation of the features of the training photographs
ATTRIBUTES = "CUB_200_2011/attributes/class_attribute_labels_continuous.txt"


@functools.cache
def photographs(data_dir: str | Path | None, part: Part) -> Examples:
    """2,999 + 2,903 photographs as 512 features each: 29 or 30 of a kind, and 15 to 30.

    Training and test part are those of CUB-200-2011. The features, made by a SqueezeNet that was
    trained on ImageNet (after fire9 and its ReLU, mean over space), are ≥ 0 with a mean and a
    deviation of 12 and a maximum of 195. They are divided by 12, one constant as for pixels: as
    they are, a VAE under its default rates diverges and the ceiling loses 17 points.

    Raises:
        DataError: no ``data_dir``; a file is missing or corrupt.
    """
    path = _path(data_dir, FEATURES, "features of the photographs")
    x, y, trained, ids = _read(path)
    rows = trained == (part == "train")
    x, y = x[rows].astype(np.float32), y[rows].astype(np.int64)
    counts = [int((y == c).sum()) for c in range(100)]
    if sum(counts) != len(y) or min(counts) < 2:
        found = f"{len(y) - sum(counts)} others and {min(counts)} of one class"
        raise corrupt(path, f"labels 0 to 99, at least 2 {part} examples of each", found)
    if not np.isfinite(x).all():
        raise corrupt(path, "finite features", "NaN or infinity")
    return Examples(torch.from_numpy(x) / SCALE, torch.from_numpy(y), _names(data_dir, ids))


def attributes(data_dir: str | Path | None) -> Tensor:
    """(100, 312) float64, in [0, 100]: of the people asked, how many per cent saw an attribute
    (a red throat, a hooked bill, ...) in a kind of bird, in the order of the labels.

    Raises:
        DataError: no ``data_dir``; a file is missing or corrupt.
    """
    *_, ids = _read(_path(data_dir, FEATURES, "features of the photographs"))
    path = _path(data_dir, ATTRIBUTES, "percentages of 200 kinds × 312 attributes")
    try:
        table = np.array([line.split() for line in _lines(path)], dtype=np.float64)
    except ValueError as error:
        raise corrupt(path, "200 lines of 312 numbers", str(error)) from error
    if table.shape != (200, 312):
        raise corrupt(path, "200 lines of 312 numbers", f"a table of shape {table.shape}")
    if not ((table >= 0) & (table <= 100)).all() or not table.any(1).all():
        raise corrupt(path, "percentages, some above 0 in each line", "others")
    return torch.from_numpy(table[ids - 1])


def _path(data_dir: str | Path | None, name: str, what: str) -> Path:
    if data_dir is None:
        raise DataError(f"cub100 is not downloaded: pass --data-dir DIR with DIR/{name} ({what})")
    path = Path(data_dir).expanduser() / name
    if not path.is_file():
        raise DataError(
            f"{path} is missing: expected {what}, which are not downloaded; put the file there, or "
            "name another folder with --data-dir"
        )
    return path


def _read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features (N, 512), labels (N,), whether in the training part (N,), kinds' numbers (100,)."""
    names = ("features", "label", "is_train", "class_ids")
    try:
        with path.open("rb") as raw, np.load(raw) as file:
            x, y, trained, ids = arrays = [file[name] for name in names]
    except Exception as error:  # zip, zlib and NumPy's header have errors of their own, many kinds
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise corrupt(path, f"an .npz file with {', '.join(names)}", reason) from error
    n = y.size
    shapes = [(n, 512), (n,), (n,), (100,)]
    if [a.shape for a in arrays] != shapes or [a.dtype.kind for a in arrays] != list("fibi"):
        expected = "features (N, 512) float, label (N,) int, is_train (N,) bool, class_ids (100,)"
        raise corrupt(path, expected, ", ".join(f"{a.shape} {a.dtype}" for a in arrays))
    if ids.min() < 1 or ids.max() > 200:
        raise corrupt(path, "class_ids 1 to 200", f"{ids.min()} to {ids.max()}")
    return x, y, trained, ids


def _names(data_dir: str | Path | None, ids: np.ndarray) -> tuple[str, ...]:
    """``7 007.Parakeet_Auklet`` is called "Parakeet Auklet"."""
    path = _path(data_dir, CLASSES, "names of 200 kinds of birds")
    known = {line.split(" ")[0]: line.partition(".")[2] for line in _lines(path)}
    try:
        return tuple(known[str(i)].replace("_", " ") for i in ids)
    except KeyError as error:
        raise corrupt(path, f"a line '{error.args[0]} NUMBER.NAME'", "none") from error


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise corrupt(path, "a readable text", str(error)) from error
