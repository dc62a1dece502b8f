"""Features of photographs and attributes of classes, as zero-shot learning uses them.

The files are those of the "Proposed Splits", which may be used for research only and are not
downloaded (https://www.mpi-inf.mpg.de/zsl-benchmark):

    xlsa17/data/CUB/res101.mat    xlsa17/data/CUB/att_splits.mat
    xlsa17/data/AWA2/res101.mat   xlsa17/data/AWA2/att_splits.mat

in ``data_dir``. The proposed split itself keeps some classes out of training altogether. In a
stream every class is learned once its task has come, so here 20 % of the photographs of every
class, the same whatever the seed, are the test part. What makes it zero-shot is the order: the
attributes of classes to come are known.

Source: Xian, Lampert, Schiele, Akata, TPAMI 2018, https://arxiv.org/abs/1707.00600.
"""

import functools
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from trainables.benchmarks.cache import digest, kept
from trainables.benchmarks.sources import Examples, Part, corrupt, stamp
from trainables.benchmarks.splits import hold_out
from trainables.engine.errors import DataError

CLASSES = {"CUB": 200, "AWA2": 50}
FEATURES, ABOUT = "res101.mat", "att_splits.mat"

Name = Literal["CUB", "AWA2"]


def cub(data_dir: str | Path | None, part: Part) -> Examples:
    """11,788 photographs of 200 kinds of birds as 2048 features each. See `photographs`."""
    return photographs("CUB", data_dir, part)


def awa2(data_dir: str | Path | None, part: Part) -> Examples:
    """37,322 photographs of 50 kinds of animals as 2048 features each. See `photographs`."""
    return photographs("AWA2", data_dir, part)


def cub_attributes(data_dir: str | Path | None) -> Tensor:
    """(200, 312), in the order of the labels. See `attributes`."""
    return attributes("CUB", data_dir)


def awa2_attributes(data_dir: str | Path | None) -> Tensor:
    """(50, 85), in the order of the labels. See `attributes`."""
    return attributes("AWA2", data_dir)


@functools.cache
def photographs(name: Name, data_dir: str | Path | None, part: Part) -> Examples:
    """Features of a ResNet-101 that was trained on ImageNet, ≥ 0; neither scaled nor cut.

    Raises:
        DataError: no ``data_dir``; a file is missing or corrupt.
    """
    path = _path(name, FEATURES, data_dir)

    def decode() -> dict[str, Tensor]:
        x, y = _arrays(path, "features", "labels")
        x, y = np.ascontiguousarray(x.T, dtype=np.float32), y.ravel().astype(np.int64) - 1
        if x.ndim != 2 or len(x) != len(y):
            found = f"{x.T.shape}, {len(y)} labels"
            raise corrupt(path, "features (D, N) and N labels", found)
        if (
            y.min() < 0
            or y.max() >= CLASSES[name]
            or np.bincount(y, minlength=CLASSES[name]).min() < 3
        ):
            expected = f"at least 3 examples of each label 1 to {CLASSES[name]}"
            raise corrupt(path, expected, f"labels {y.min() + 1} to {y.max() + 1}, or too few")
        if not np.isfinite(x).all():
            raise corrupt(path, "finite features", "NaN or infinity")
        return {"x": torch.from_numpy(x), "y": torch.from_numpy(y)}

    kept_as = f"{name}-{digest(1, stamp(path))}"
    found = kept("xlsa17", kept_as, decode)
    rows = hold_out(found["y"], 0.2, 0, f"{name} test part") == (part == "test")
    return Examples(found["x"][rows], found["y"][rows], _names(name, data_dir))


def attributes(name: Name, data_dir: str | Path | None) -> Tensor:
    """(C, A) float64, what people said about each class, a row of length 1 each.

    Raises:
        DataError: no ``data_dir``; a file is missing or corrupt.
    """
    path = _path(name, ABOUT, data_dir)
    (table,) = _arrays(path, "att")
    if table.ndim != 2 or table.shape[1] != CLASSES[name]:
        raise corrupt(path, f"att of shape (A, {CLASSES[name]})", f"{table.shape}")
    if not np.isfinite(table).all() or not table.any(0).all():
        raise corrupt(path, "finite attributes, some of each class not 0", "others")
    return torch.from_numpy(np.ascontiguousarray(table.T, dtype=np.float64))


def _names(name: Name, data_dir: str | Path | None) -> tuple[str, ...]:
    """``007.Parakeet_Auklet`` is called "Parakeet Auklet", ``grizzly+bear`` "grizzly bear"."""
    path = _path(name, ABOUT, data_dir)
    (table,) = _arrays(path, "allclasses_names")
    found = [str(np.ravel(cell)[0]) for cell in np.ravel(table)]
    if len(found) != CLASSES[name]:
        raise corrupt(path, f"allclasses_names of {CLASSES[name]} classes", f"{len(found)}")
    own = [text.partition(".")[2] or text for text in found]
    return tuple(text.replace("_", " ").replace("+", " ") for text in own)


def _path(name: Name, file: str, data_dir: str | Path | None) -> Path:
    place = f"xlsa17/data/{name}/{file}"
    advice = "get xlsa17.zip from https://www.mpi-inf.mpg.de/zsl-benchmark"
    if data_dir is None:
        raise DataError(f"{name} is not downloaded: pass --data-dir DIR with DIR/{place}; {advice}")
    path = Path(data_dir).expanduser() / place
    if not path.is_file():
        raise DataError(
            f"{path} is missing, and it is not downloaded: {advice}, or name another "
            "folder with --data-dir"
        )
    return path


def _arrays(path: Path, *names: str) -> list[np.ndarray]:
    """Arrays of a .mat file, only these read."""
    from scipy.io import loadmat

    try:
        found = loadmat(path, variable_names=names)
        return [found[name] for name in names]
    except Exception as error:  # MATLAB's format has errors of many kinds
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise corrupt(path, f"a .mat file with {', '.join(names)}", reason) from error
