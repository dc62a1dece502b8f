"""Reading IDX files: what is read, and what is said when they are missing or broken."""

import gzip
import shutil
import stat
import struct
from pathlib import Path
from urllib.error import URLError

import pytest
import torch

from trainables import benchmarks
from trainables.benchmarks import DataError, sources

PER_CLASS = {"train": 5, "t10k": 3}


def idx_bytes(array):
    """The IDX file of an unsigned-byte tensor, after the format's description."""
    header = struct.pack(f">4B{array.dim()}I", 0, 0, 8, array.dim(), *array.shape)
    return header + bytes(array.flatten().tolist())


def write(root, name, *, gz):
    """A data folder with 50 + 30 images of 4 × 4 pixels: label c has the pixels 25 c, 25 c + i."""
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    for prefix, n in PER_CLASS.items():
        y = torch.arange(10).repeat(n)
        x = (25 * y[:, None, None]).expand(-1, 4, 4).clone()
        x[:, 0, 0] += torch.arange(len(y)) // 10
        for kind, array in (("images-idx3", x), ("labels-idx1", y)):
            file = folder / f"{prefix}-{kind}-ubyte{'.gz' if gz else ''}"
            raw = idx_bytes(array)
            file.write_bytes(gzip.compress(raw, mtime=0) if gz else raw)
    return folder


@pytest.mark.parametrize("gz", [True, False])
@pytest.mark.parametrize(
    ("name", "folder"), [("split_mnist", "MNIST"), ("split_fashion_10", "FashionMNIST")]
)
def test_idx_files_plain_and_gz(tmp_path, name, folder, gz):
    write(tmp_path, folder, gz=gz)
    stream = benchmarks.load(name, data_dir=tmp_path)
    assert stream.problem.input_shape == (1, 4, 4)
    for task, held in zip(stream.tasks, benchmarks.load_test(name, data_dir=tmp_path), strict=True):
        for split, n in ((task.train, 4), (task.validation, 1), (held, 3)):
            assert sorted(split.y.tolist()) == sorted(task.classes * n)
            torch.testing.assert_close(split.x[:, 0, -1, -1], 25 * split.y / 127.5 - 1)


def test_a_read_only_folder_is_left_as_it_is(tmp_path):
    folder = write(tmp_path, "MNIST", gz=True)
    before = sorted(folder.iterdir())
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        benchmarks.load("split_mnist", data_dir=tmp_path)
    finally:
        folder.chmod(stat.S_IRWXU)
    assert sorted(folder.iterdir()) == before


def test_load_does_without_the_test_files(tmp_path):
    for file in write(tmp_path, "MNIST", gz=True).glob("t10k*"):
        file.unlink()
    benchmarks.load("split_mnist", data_dir=tmp_path)
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte"):
        benchmarks.load_test("split_mnist", data_dir=tmp_path)


def test_it_agrees_with_torchvision(tmp_path):
    from torchvision.datasets import MNIST

    write(tmp_path, "MNIST", gz=False)
    theirs, ours = MNIST(str(tmp_path), train=True), sources.mnist(tmp_path, "train")
    assert torch.equal(ours.x, theirs.data)
    assert torch.equal(ours.y, theirs.targets)


# ---- download ------------------------------------------------------------------------------------


def test_missing_files_are_downloaded_to_the_cache(tmp_path, cache, monkeypatch):
    origin, asked = write(tmp_path / "origin", "MNIST", gz=True), []

    def download_url(url, root, filename, md5):
        asked.append(filename)
        assert md5 == dict(MNIST.resources)[filename]
        shutil.copy(origin / filename, root)

    from torchvision.datasets import MNIST

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download_url)
    (tmp_path / "empty").mkdir()
    benchmarks.load("split_mnist", data_dir=tmp_path / "empty")
    train = ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"]
    assert asked == train  # of the training part only
    assert sorted(f.name for f in (cache / "data/MNIST/raw").iterdir()) == train
    benchmarks.load("split_mnist")
    assert asked == train  # once


def test_a_second_mirror_is_tried(tmp_path, monkeypatch):
    origin = write(tmp_path / "origin", "MNIST", gz=True)

    def download_url(url, root, filename, md5):
        if "amazonaws" in url:
            raise URLError("down")
        shutil.copy(origin / filename, root)

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download_url)
    benchmarks.load("split_mnist")


@pytest.mark.parametrize("given", [True, False])
def test_no_files_and_no_network(tmp_path, cache, given):
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    (tmp_path / "MNIST" / "raw" / "something.txt").touch()
    with pytest.raises(DataError) as error:
        benchmarks.load("split_mnist", data_dir=tmp_path if given else None)
    text = str(error.value)
    assert "expected train-images-idx3-ubyte or train-images-idx3-ubyte.gz" in text
    assert ("holds something.txt" in text) == given
    assert "no network in tests" in text
    assert "--data-dir" in text
    assert "\n" not in text
    assert not any(f.is_file() or f.name.startswith("tmp") for f in cache.rglob("*"))


def test_a_download_that_breaks_off_leaves_nothing(cache, monkeypatch):
    def download_url(url, root, filename, md5):
        (Path(root) / filename).write_bytes(b"half")
        raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download_url)
    with pytest.raises(DataError, match="corrupted"):
        benchmarks.load("split_mnist")
    assert not list((cache / "data/MNIST/raw").iterdir())


def test_a_data_dir_that_does_not_exist(tmp_path):
    with pytest.raises(DataError, match=r"--data-dir .*nowhere: expected a folder"):
        benchmarks.load("split_mnist", data_dir=tmp_path / "nowhere")


# ---- corrupt files -------------------------------------------------------------------------------

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
GOOD = idx_bytes(torch.zeros(50, 4, 4, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (f"{IMAGES}.gz", gzip.compress(GOOD, mtime=0)[:-10], "EOFError"),
        (f"{IMAGES}.gz", b"<html>not found</html>", "gzip"),
        (f"{IMAGES}.gz", b"", "begins with 00000803"),
        (IMAGES, b"\0\0\x0d\x03" + GOOD[4:], "begins with 00000803, found 00000d03"),
        (IMAGES, GOOD[:-1], "50 × 4 × 4 bytes, as its header says, found 799"),
        (IMAGES, GOOD + b"\0", "found 801"),
        (IMAGES, GOOD[:9], "as its header says, found 0"),
        (IMAGES, idx_bytes(torch.zeros(0, 4, 4, dtype=torch.uint8)), "0 × 4 × 4 bytes"),
        (
            IMAGES,
            idx_bytes(torch.zeros(49, 4, 4, dtype=torch.uint8)),
            "expected 50 images, .*labels, found 49",
        ),
        (LABELS, idx_bytes(torch.arange(50) % 11), "labels 0 to 9, found 10"),
        (LABELS, idx_bytes(torch.arange(50) % 9), "at least 2 .*, found 0 of class 9"),
    ],
)
def test_corrupt_files_are_named_in_one_line(tmp_path, file, content, message):
    folder = write(tmp_path, "MNIST", gz=file.endswith(".gz"))
    (folder / file).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        benchmarks.load("split_mnist", data_dir=tmp_path)
    text = str(error.value)
    assert text.startswith(f"{folder / file}: expected ")
    assert "--data-dir" in text
    assert "\n" not in text
