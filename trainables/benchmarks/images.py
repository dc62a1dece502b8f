"""Photographs and drawings: CIFAR, SVHN, Omniglot, Tiny ImageNet, or any folder of images.

Files are looked for in ``data_dir``, where torchvision keeps them if that is its root,

    cifar-10-batches-py/*   cifar-100-python/*   train_32x32.mat   omniglot-py/images_*.zip

and Tiny ImageNet's as ``tiny-imagenet-200/*`` or ``tiny-imagenet-200.zip``; what is not there is
downloaded to the user's cache folder. Published files are checked against their MD5. Images are
decoded once and kept in the cache folder, from which all processes of a machine share them.
"""

import functools
import io
import pickle
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainables.benchmarks.cache import digest, kept
from trainables.benchmarks.sources import DIGITS, Examples, Part, corrupt, located, stamp, verified
from trainables.engine.errors import DataError

SIDE = 64  # pixels, of the images of a folder
CHARACTER = 28  # pixels, of a character of Omniglot
DRAWERS = {"train": range(1, 17), "test": range(17, 21)}  # of each alphabet of Omniglot

ALPHABETS = {  # of Omniglot, and how many characters each has
    "Alphabet_of_the_Magi": 20, "Angelic": 20, "Anglo-Saxon_Futhorc": 29, "Arcadian": 26,
    "Armenian": 41, "Asomtavruli_(Georgian)": 40, "Atemayar_Qelisayer": 26, "Atlantean": 26,
    "Aurek-Besh": 26, "Avesta": 26, "Balinese": 24, "Bengali": 46,
    "Blackfoot_(Canadian_Aboriginal_Syllabics)": 14, "Braille": 26, "Burmese_(Myanmar)": 34,
    "Cyrillic": 33, "Early_Aramaic": 22, "Futurama": 26, "Ge_ez": 26, "Glagolitic": 45,
    "Grantha": 43, "Greek": 24, "Gujarati": 48, "Gurmukhi": 45, "Hebrew": 22,
    "Inuktitut_(Canadian_Aboriginal_Syllabics)": 16, "Japanese_(hiragana)": 52,
    "Japanese_(katakana)": 47, "Kannada": 41, "Keble": 26, "Korean": 40, "Latin": 26,
    "Malay_(Jawi_-_Arabic)": 40, "Malayalam": 47, "Manipuri": 40, "Mkhedruli_(Georgian)": 41,
    "Mongolian": 30, "N_Ko": 33, "Ojibwe_(Canadian_Aboriginal_Syllabics)": 14,
    "Old_Church_Slavonic_(Cyrillic)": 45, "Oriya": 46, "Sanskrit": 42, "Sylheti": 28,
    "Syriac_(Estrangelo)": 23, "Syriac_(Serto)": 23, "Tagalog": 17, "Tengwar": 25, "Tibetan": 42,
    "Tifinagh": 55, "ULOG": 26,
}  # fmt: skip

TINY = "tiny-imagenet-200"
TINY_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
TINY_URL = f"http://cs231n.stanford.edu/{TINY}.zip"


def cifar10(data_dir: str | Path | None, part: Part) -> Examples:
    """50,000 + 10,000 colour photographs of 32 × 32 pixels, 10 classes. See `cifar`."""
    return cifar("CIFAR10", data_dir, part)


def cifar100(data_dir: str | Path | None, part: Part) -> Examples:
    """50,000 + 10,000 colour photographs of 32 × 32 pixels, 100 fine classes. See `cifar`."""
    return cifar("CIFAR100", data_dir, part)


@functools.cache
def cifar(
    name: Literal["CIFAR10", "CIFAR100"], data_dir: str | Path | None, part: Part
) -> Examples:
    """One part of a data set of Krizhevsky's, from its pickles.

    Nothing is unpickled whose MD5 is not the published one.

    Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".

    Raises:
        DataError: a file is neither found nor downloaded, or is corrupt.
    """
    from torchvision import datasets  # takes seconds to import

    dataset = getattr(datasets, name)
    published = {"train": dataset.train_list, "test": dataset.test_list}[part]
    md5s = {f"{dataset.base_folder}/{file}": md5 for file, md5 in published}
    meta = f"{dataset.base_folder}/{dataset.meta['filename']}"
    root = located(name, [*md5s, meta], data_dir, lambda to: dataset(str(to), download=True))

    def decode() -> dict[str, Tensor]:
        parts = [pickle.loads(verified(root / f, m), encoding="latin1") for f, m in md5s.items()]
        x = np.concatenate([p["data"] for p in parts]).reshape(-1, 3, 32, 32)
        y = [c for p in parts for c in p["labels" if name == "CIFAR10" else "fine_labels"]]
        return {"x": torch.from_numpy(x), "y": torch.tensor(y)}

    names = pickle.loads(verified(root / meta, dataset.meta["md5"]))[dataset.meta["key"]]
    return _decoded(name, [root / file for file in md5s], decode, tuple(names))


@functools.cache
def svhn(data_dir: str | Path | None, part: Part) -> Examples:
    """73,257 + 26,032 digits of house numbers, 32 × 32 pixels in colour; 0 to 9 in this order.

    Source: Netzer et al. 2011, "Reading Digits in Natural Images with Unsupervised Feature
        Learning".

    Raises:
        DataError: the file is neither found nor downloaded, or is corrupt.
    """
    from scipy.io import loadmat
    from torchvision.datasets import SVHN

    _, file, md5 = SVHN.split_list[part]
    root = located("SVHN", [file], data_dir, lambda to: SVHN(str(to), part, download=True))

    def decode() -> dict[str, Tensor]:
        found = loadmat(io.BytesIO(verified(root / file, md5)))
        x, y = found["X"].transpose(3, 2, 0, 1), found["y"].ravel().astype(np.int64)
        return {"x": torch.from_numpy(x.copy()), "y": torch.from_numpy(y % 10)}  # 10 stands for 0

    return _decoded("SVHN", [root / file], decode, DIGITS)


@functools.cache
def omniglot(data_dir: str | Path | None, part: Part) -> Examples:
    """Characters of 50 alphabets, drawn by 20 people each, black on white; 1,623 classes.

    The training part is what the first 16 people of each alphabet drew, the test part what the
    last 4 did, who drew nothing else in it. Images of 105 × 105 pixels are averaged to 28 × 28.
    The classes of an alphabet follow each other, as do the alphabets by name.

    Source: Lake et al., Science 2015, https://doi.org/10.1126/science.aab3050.
    Differs from the source: its division (30 alphabets to learn to learn from, 20 to evaluate) is
        not used.

    Raises:
        DataError: a file is neither found nor downloaded, or is corrupt.
    """
    from torchvision.datasets import Omniglot
    from torchvision.datasets.utils import download_url

    md5s = {f"{Omniglot.folder}/{file}.zip": md5 for file, md5 in Omniglot.zips_md5.items()}

    def fetch(to: Path) -> None:
        for path, md5 in md5s.items():
            url = f"{Omniglot.download_url_prefix}/{Path(path).name}"
            download_url(url, str(to / Omniglot.folder), Path(path).name, md5)

    root = located("Omniglot", list(md5s), data_dir, fetch)

    def decode() -> dict[str, Tensor]:
        found = {}  # (alphabet, character) -> drawer -> image
        for path, md5 in md5s.items():
            with zipfile.ZipFile(io.BytesIO(verified(root / path, md5))) as archive:
                for name in archive.namelist():
                    if not name.endswith(".png"):
                        continue
                    *_, alphabet, character, file = name.split("/")
                    drawer = int(file.removesuffix(".png").split("_")[1])
                    if drawer in DRAWERS[part]:
                        raw = archive.read(name)
                        found.setdefault((alphabet, character), {})[drawer] = _character(raw)
        order = sorted(found)
        counts = {name: sum(a == name for a, _ in order) for name in ALPHABETS}
        if counts != ALPHABETS or any(len(found[c]) != len(DRAWERS[part]) for c in order):
            expected = f"{len(ALPHABETS)} alphabets, {sum(ALPHABETS.values())} characters in all"
            raise corrupt(root / Omniglot.folder, expected, f"{len(order)} characters")
        x = np.stack([found[c][d] for c in order for d in sorted(found[c])])
        return {
            "x": torch.from_numpy(x),
            "y": torch.arange(len(order)).repeat_interleave(len(DRAWERS[part])),
        }

    names = tuple(
        f"{alphabet.replace('_', ' ')} {i}"
        for alphabet, count in ALPHABETS.items()
        for i in range(1, count + 1)
    )
    return _decoded("Omniglot", [root / path for path in md5s], decode, names, part)


@functools.cache
def tiny_imagenet(data_dir: str | Path | None, part: Part) -> Examples:
    """100,000 + 10,000 colour photographs of 64 × 64 pixels, 200 classes of ImageNet.

    The test part is what the data set calls its validation part: its own test part has no labels.
    Read from the folder or, where there is none, from the archive.

    Source: Le, Yang 2015, "Tiny ImageNet Visual Recognition Challenge".

    Raises:
        DataError: the archive is neither found nor downloaded; a file is missing or corrupt.
    """
    from torchvision.datasets.utils import download_url

    unpacked = None if data_dir is None else Path(data_dir).expanduser() / TINY
    if unpacked is not None and (unpacked / "wnids.txt").is_file():
        root, path = unpacked, unpacked / "wnids.txt"
    else:

        def fetch(to: Path) -> None:
            download_url(TINY_URL, str(to), f"{TINY}.zip", TINY_MD5)

        path = located("Tiny ImageNet", [f"{TINY}.zip"], data_dir, fetch) / f"{TINY}.zip"
        root = _in_archive(path)
    wnids = _text(root / "wnids.txt").split()
    known = (line.partition("\t")[::2] for line in _text(root / "words.txt").splitlines())
    words = {wnid: name.split(",")[0] for wnid, name in known}

    def decode() -> dict[str, Tensor]:
        if path.suffix == ".zip":
            verified(path, TINY_MD5)
        if part == "train":
            files = [
                (root / "train" / wnid / "images" / line.split()[0], wnid)
                for wnid in wnids
                for line in _text(root / "train" / wnid / f"{wnid}_boxes.txt").splitlines()
            ]
        else:
            lines = _text(root / "val" / "val_annotations.txt").splitlines()
            fields = [line.split("\t") for line in lines]
            files = [(root / "val" / "images" / file, wnid) for file, wnid, *_ in fields]
        number = {wnid: c for c, wnid in enumerate(wnids)}
        y = torch.tensor([number[wnid] for _, wnid in files])
        return {"x": _pictures((file for file, _ in files), len(files)), "y": y}

    return _decoded("TinyImageNet", [path], decode, tuple(words.get(w, w) for w in wnids), part)


# ---- a folder of images --------------------------------------------------------------------------


@functools.cache
def folder(data_dir: str | Path | None, part: Part) -> Examples:
    """Images of any size in ``train/CLASS/*`` and ``test/CLASS/*``, as 64 × 64 pixels in colour.

    The shorter side is scaled to 64 pixels and the middle is cut out. Classes are the folders of
    the part, by name; files that do not end like images are left out.

    Raises:
        DataError: no ``data_dir``; a folder is missing or has too few classes or images; an image
            cannot be read.
    """
    from torchvision.datasets.folder import IMG_EXTENSIONS

    names = _classes(data_dir, part)
    where = Path(str(data_dir)).expanduser() / part
    files, least = [], {"train": 2, "test": 1}[part]  # an example to learn, one to validate on
    for c, name in enumerate(names):
        own = sorted(f for f in (where / name).iterdir() if f.suffix.lower() in IMG_EXTENSIONS)
        if len(own) < least:
            raise corrupt(where / name, f"at least {least} images", f"{len(own)}")
        files += [(file, c) for file in own]

    def decode() -> dict[str, Tensor]:
        y = torch.tensor([c for _, c in files])
        return {"x": _pictures((file for file, _ in files), len(files)), "y": y}

    return _decoded("folder", [file for file, _ in files], decode, names)


def pairs(data_dir: str | Path | None) -> tuple[int, ...]:
    """Two classes of the folder a task, three in the last one where their number is odd."""
    count = len(_classes(data_dir, "train"))
    return (2,) * (count // 2 - count % 2) + (3,) * (count % 2)


def _classes(data_dir: str | Path | None, part: Part) -> tuple[str, ...]:
    if data_dir is None:
        raise DataError(
            "folder is your own: pass --data-dir DIR with images in DIR/train/CLASS and "
            "DIR/test/CLASS"
        )
    names = {}
    for of in dict.fromkeys(["train", part]):
        where = Path(data_dir).expanduser() / of
        if not where.is_dir():
            raise DataError(
                f"{where} is missing: expected a folder of images for each class in it; name "
                "another folder with --data-dir"
            )
        names[of] = tuple(sorted(f.name for f in where.iterdir() if f.is_dir()))
        if len(names[of]) < 2:
            raise corrupt(where, "folders of at least two classes", f"{len(names[of])}")
        if names[of] != names["train"]:
            odd = sorted(set(names[of]) ^ set(names["train"]))
            raise corrupt(where, "the classes of the training part", f"{odd[0]} in one of the two")
    return names[part]


# ---- decoding ------------------------------------------------------------------------------------


def _decoded(
    name: str,
    files: list[Path],
    decode: Callable[[], dict[str, Tensor]],
    class_names: tuple[str, ...],
    *about: object,
) -> Examples:
    """What was decoded from these files, once; ``about`` says what else it depends on."""
    key = digest(1, [stamp(file) for file in files], about)
    found = kept("images", f"{name}-{key}", decode)
    return Examples(found["x"], found["y"], class_names)


def _pictures(files: Iterable, count: int) -> Tensor:
    """``(count, 3, SIDE, SIDE)`` uint8."""
    found = np.empty((count, 3, SIDE, SIDE), dtype=np.uint8)
    for i, file in enumerate(files):
        found[i] = _picture(file).transpose(2, 0, 1)
    return torch.from_numpy(found)


def _picture(file) -> np.ndarray:
    """The middle of an image, ``(SIDE, SIDE, 3)`` uint8."""
    try:
        with Image.open(io.BytesIO(file.read_bytes())) as image:
            side = min(image.size)
            left, top = ((n - side) / 2 for n in image.size)
            box = (left, top, left + side, top + side)
            small = image.convert("RGB")
            if image.size != (SIDE, SIDE):
                small = small.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box)
            return np.asarray(small)
    except (OSError, KeyError, Image.DecompressionBombError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise corrupt(file, "an image", reason) from error


def _character(raw: bytes) -> np.ndarray:
    """``(CHARACTER, CHARACTER)`` uint8."""
    with Image.open(io.BytesIO(raw)) as image:
        size = (CHARACTER, CHARACTER)
        return np.asarray(image.convert("L").resize(size, Image.Resampling.BOX))


def _in_archive(path: Path) -> zipfile.Path:
    try:
        return zipfile.Path(path, f"{TINY}/")
    except (OSError, zipfile.BadZipFile) as error:
        raise corrupt(path, "a .zip archive", str(error)) from error


def _text(path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise corrupt(path, "a readable text", f"{type(error).__name__}: {error}") from error
