"""Reading CIFAR, SVHN, Omniglot, Tiny ImageNet and folders: small files of each format.

The published checksums are replaced by those of the files that the tests write.
"""

import dataclasses
import hashlib
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from trainables import benchmarks
from trainables.benchmarks import DataError, images


def md5(path):
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def pixels(y, shape, i):
    """Image i of class y: all pixels 2 y, the first one i."""
    image = np.full(shape, 2 * y, dtype=np.uint8)
    image.reshape(-1)[0] = i
    return image


def png(image, kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind)
    return stream.getvalue()


def in_both(name, data, **options):
    """All training, validation and test splits, each with the classes of its task."""
    stream = benchmarks.load(name, data_dir=data, **options)
    test = benchmarks.load_test(name, data_dir=data, **options)
    for task, held in zip(stream.tasks, test, strict=True):
        for split in (task.train, task.validation, held):
            assert set(split.y.tolist()) == set(task.classes)
            yield task, split


def raw(x):
    return x.add(1).mul(127.5).round().to(torch.uint8)


def refused(name, data, match):
    with pytest.raises(DataError, match=match) as error:
        benchmarks.load(name, data_dir=data)
    assert "\n" not in str(error.value)
    assert "--data-dir" in str(error.value)
    return str(error.value)


# ---- CIFAR ---------------------------------------------------------------------------------------


def write_cifar(root, dataset, monkeypatch, per_class=5):
    """Files of CIFAR-10's or CIFAR-100's format, whose checksums torchvision is told."""
    classes, key = (10, "labels") if dataset is datasets.CIFAR10 else (100, "fine_labels")
    folder = root / dataset.base_folder
    folder.mkdir()

    def put(file, content):
        (folder / file).write_bytes(pickle.dumps(content))
        return md5(folder / file)

    for listed in ("train_list", "test_list"):
        sums = []
        for b, (file, _) in enumerate(getattr(dataset, listed)):
            y = [c for c in range(classes) for _ in range(per_class)]
            x = [pixels(c, (3, 32, 32), b * per_class + i % per_class) for i, c in enumerate(y)]
            sums.append([file, put(file, {"data": np.stack(x).reshape(-1, 3072), key: y})])
        monkeypatch.setattr(dataset, listed, sums)
    names = [f"kind {c}" for c in range(classes)]
    meta = {**dataset.meta, "md5": put(dataset.meta["filename"], {dataset.meta["key"]: names})}
    monkeypatch.setattr(dataset, "meta", meta)
    return folder


@pytest.mark.parametrize(
    ("name", "dataset", "sizes", "examples"),
    [
        ("split_cifar10", datasets.CIFAR10, [2] * 5, 25),
        ("split_cifar10_10", datasets.CIFAR10, [1] * 10, 25),
        ("split_cifar100", datasets.CIFAR100, [10] * 10, 5),
        ("split_cifar100_20", datasets.CIFAR100, [5] * 20, 5),
        ("split_cifar100_50_5", datasets.CIFAR100, [50] + [5] * 10, 5),
    ],
)
def test_cifar_is_cut_as_declared(name, dataset, sizes, examples, tmp_path, monkeypatch):
    write_cifar(tmp_path, dataset, monkeypatch)
    stream = benchmarks.load(name, data_dir=tmp_path)
    assert stream.problem.input_shape == (3, 32, 32)
    assert stream.class_names == tuple(f"kind {c}" for c in range(sum(sizes)))
    assert [len(task.classes) for task in stream.tasks] == sizes
    assert sorted(sum((t.classes for t in stream.tasks), ())) == list(range(sum(sizes)))
    held, tested = examples // 5, 5
    for i, (task, split) in enumerate(in_both(name, tmp_path)):
        count = (examples - held, held, tested)[i % 3]
        assert len(split.y) == count * len(task.classes)
        assert torch.equal(raw(split.x)[:, 2, -1, -1], (2 * split.y).to(torch.uint8))


def test_cifar_agrees_with_torchvision(tmp_path, monkeypatch):
    write_cifar(tmp_path, datasets.CIFAR10, monkeypatch)
    for part in ("train", "test"):
        theirs = datasets.CIFAR10(str(tmp_path), train=part == "train")
        ours = images.cifar10(tmp_path, part)
        assert np.array_equal(ours.x.permute(0, 2, 3, 1), theirs.data)
        assert ours.y.tolist() == theirs.targets
        assert list(ours.class_names) == theirs.classes


def test_a_search_does_without_the_test_file(tmp_path, monkeypatch):
    (write_cifar(tmp_path, datasets.CIFAR100, monkeypatch) / "test").unlink()
    benchmarks.load("split_cifar100", data_dir=tmp_path)


def test_a_pickle_of_another_checksum_is_never_unpickled(tmp_path, monkeypatch):
    folder = write_cifar(tmp_path, datasets.CIFAR10, monkeypatch)

    class Trap:
        def __reduce__(self):
            return (Path(tmp_path / "sprung").touch, ())

    (folder / "data_batch_3").write_bytes(pickle.dumps(Trap()))
    text = refused("split_cifar10", tmp_path, "published file, MD5")
    assert text.startswith(str(folder / "data_batch_3"))
    assert not (tmp_path / "sprung").exists()


def test_what_is_missing_is_downloaded_once_and_whole(tmp_path, cache, monkeypatch):
    origin = tmp_path / "origin"
    origin.mkdir()
    write_cifar(origin, datasets.CIFAR10, monkeypatch)
    asked = []

    def download(url, root, filename, md5):
        asked.append(filename)
        write_cifar(Path(root), datasets.CIFAR10, monkeypatch)

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", download)
    for _ in range(2):
        images.cifar.cache_clear()
        benchmarks.load("split_cifar10")
    assert asked == ["cifar-10-python.tar.gz"]
    found = sorted(f.name for f in (cache / "data/cifar-10-batches-py").iterdir())
    assert found == ["batches.meta", *(f"data_batch_{i}" for i in range(1, 6))]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("split_cifar10", "cifar-10-batches-py/data_batch_1"),
        ("split_svhn", "train_32x32.mat"),
        ("split_omniglot", "omniglot-py/images_background.zip"),
        ("split_tiny_imagenet", "tiny-imagenet-200.zip"),
    ],
)
def test_missing_files_without_a_network(name, file, tmp_path, cache):
    text = refused(name, tmp_path, "is missing, and the download failed")
    assert str(tmp_path / file) in text
    assert not any(f.is_file() or f.name.startswith("tmp") for f in cache.rglob("*"))


def test_images_are_decoded_once(tmp_path, cache, monkeypatch):
    write_cifar(tmp_path, datasets.CIFAR10, monkeypatch)
    first = images.cifar10(tmp_path, "train")
    images.cifar.cache_clear()
    monkeypatch.setattr(images, "verified", lambda path, md5: pickle.dumps({"label_names": "?"}))
    again = images.cifar10(tmp_path, "train")
    assert torch.equal(first.x, again.x)
    assert len(list((cache / "images").glob("*.safetensors"))) == 1


# ---- SVHN ----------------------------------------------------------------------------------------


def test_svhn(tmp_path, monkeypatch):
    listed = {}
    for part, n in (("train", 5), ("test", 2)):
        y = np.array([10, *range(1, 10)] * n)  # 10 stands for 0
        x = np.stack([pixels(c % 10, (32, 32, 3), i) for i, c in enumerate(y)], -1)
        path = tmp_path / f"{part}_32x32.mat"
        savemat(path, {"X": x, "y": y[:, None].astype(np.uint8)})
        listed[part] = ["http://nowhere", path.name, md5(path)]
    monkeypatch.setattr(datasets.SVHN, "split_list", listed)
    theirs = datasets.SVHN(str(tmp_path), "test")
    ours = images.svhn(tmp_path, "test")
    assert np.array_equal(ours.x, theirs.data)
    assert ours.y.tolist() == theirs.labels.tolist()
    for i, (task, split) in enumerate(in_both("split_svhn", tmp_path)):
        assert split.y.bincount(minlength=10)[list(task.classes)].tolist() == [(4, 1, 2)[i % 3]] * 2
        assert torch.equal(raw(split.x)[:, 2, -1, -1], (2 * split.y).to(torch.uint8))


# ---- Omniglot ------------------------------------------------------------------------------------

FEW = {"Alpha": 2, "Beta_(old)": 3, "Gamma": 2}


def write_omniglot(root, monkeypatch, drawers=range(1, 21)):
    """Alphabets with 2, 3 and 2 characters; drawer d leaves d columns of a character black."""
    folder, md5s = root / "omniglot-py", {}
    folder.mkdir()
    for name, alphabets in (("images_background", ("Gamma", "Alpha")),
                            ("images_evaluation", ("Beta_(old)",))):  # fmt: skip
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            for alphabet in alphabets:
                for c in range(1, FEW[alphabet] + 1):
                    for d in drawers:
                        image = np.full((105, 105), 255, dtype=np.uint8)
                        image[:, : 3 * d] = 0
                        place = f"{name}/{alphabet}/character{c:02}/{c:04}_{d:02}.png"
                        archive.writestr(place, png(image))
        md5s[name] = md5(folder / f"{name}.zip")
    monkeypatch.setattr(datasets.Omniglot, "zips_md5", md5s)
    monkeypatch.setattr(images, "ALPHABETS", FEW)
    declared = dataclasses.replace(
        benchmarks.BENCHMARKS["split_omniglot"], classes=tuple(FEW.values())
    )
    monkeypatch.setitem(benchmarks.BENCHMARKS, "split_omniglot", declared)


def test_an_alphabet_is_a_task_and_nobody_draws_for_both_parts(tmp_path, monkeypatch):
    write_omniglot(tmp_path, monkeypatch)
    stream = benchmarks.load("split_omniglot", data_dir=tmp_path)
    assert {task.classes for task in stream.tasks} == {(0, 1), (2, 3, 4), (5, 6)}
    assert stream.class_names == ("Alpha 1", "Alpha 2", "Beta (old) 1", "Beta (old) 2",
                                  "Beta (old) 3", "Gamma 1", "Gamma 2")  # fmt: skip
    assert stream.problem.input_shape == (1, 28, 28)
    for part, drawers in (("train", range(1, 17)), ("test", range(17, 21))):
        examples = images.omniglot(tmp_path, part)
        assert examples.y.bincount().tolist() == [len(drawers)] * 7
        black = 1 - examples.x.double().mean((1, 2)) / 255  # 3 d of 105 columns
        expected = torch.tensor([3 * d / 105 for d in drawers] * 7, dtype=torch.float64)
        torch.testing.assert_close(black, expected, atol=5e-3, rtol=0)


def test_the_alphabets_are_those_of_the_source():
    assert len(images.ALPHABETS) == 50
    assert sum(images.ALPHABETS.values()) == 964 + 659  # background and evaluation
    assert list(images.ALPHABETS) == sorted(images.ALPHABETS)


def test_a_drawing_that_is_not_there_is_missed(tmp_path, monkeypatch):
    write_omniglot(tmp_path, monkeypatch, drawers=range(2, 21))
    refused("split_omniglot", tmp_path, "expected 3 alphabets, 7 characters in all")


# ---- Tiny ImageNet -------------------------------------------------------------------------------


def tiny_files(per_class=5):
    """Name -> content, for 200 classes; one image is grey, as some of the real ones are."""
    wnids = [f"n{c:08}" for c in range(199, -1, -1)]
    files = {"wnids.txt": "\n".join(wnids).encode()}
    files["words.txt"] = "".join(f"{w}\tword {w}, other\n" for w in [*wnids, "n9"]).encode()
    lines = []
    for c, wnid in enumerate(wnids):
        names = [f"{wnid}_{i}.JPEG" for i in range(per_class)]
        boxes = "".join(f"{name}\t0\t0\t62\t62\n" for name in names)
        files[f"train/{wnid}/{wnid}_boxes.txt"] = boxes.encode()
        image = np.full((64, 64) if c == 0 else (64, 64, 3), c, dtype=np.uint8)
        content = png(image, "JPEG")
        files |= {f"train/{wnid}/images/{name}": content for name in names}
        files[f"val/images/val_{c}.JPEG"] = content
        lines.append(f"val_{c}.JPEG\t{wnid}\t0\t32\t44\t62\n")
    files["val/val_annotations.txt"] = "".join(lines).encode()
    return files


@pytest.mark.parametrize("packed", [True, False])
def test_tiny_imagenet_from_the_archive_or_unpacked(packed, tmp_path, monkeypatch):
    files = tiny_files()
    if packed:
        path = tmp_path / "tiny-imagenet-200.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(f"tiny-imagenet-200/{name}", content)
        monkeypatch.setattr(images, "TINY_MD5", md5(path))
    else:
        for name, content in files.items():
            path = tmp_path / "tiny-imagenet-200" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    stream = benchmarks.load("split_tiny_imagenet_100_20", data_dir=tmp_path)
    assert [len(task.classes) for task in stream.tasks] == [100] + [20] * 5
    assert stream.problem.input_shape == (3, 64, 64)
    assert stream.class_names[:2] == ("word n00000199", "word n00000198")
    for i, (task, split) in enumerate(in_both("split_tiny_imagenet", tmp_path)):
        assert len(split.y) == 20 * (4, 1, 1)[i % 3] == len(task.classes) * (4, 1, 1)[i % 3]
        assert (raw(split.x)[:, 1, 5, 5].int() - split.y).abs().max() <= 2  # JPEG


# ---- a folder ------------------------------------------------------------------------------------


def write_folder(root, classes, per_class=5):
    for part in ("train", "test"):
        for c in range(classes):
            folder = root / part / f"kind {c}"
            folder.mkdir(parents=True)
            for i in range(per_class):
                image = np.full((64, 96, 3), 10 * c, dtype=np.uint8)
                image[:, :16] = image[:, 80:] = 255  # is cut off
                (folder / f"{i}.png").write_bytes(png(image))
            (folder / "notes.txt").touch()


@pytest.mark.parametrize(
    ("classes", "tasks", "sizes"),
    [(6, None, [2] * 3), (7, None, [2, 2, 3]), (3, None, [3]), (6, 2, [3, 3]), (6, 6, [1] * 6)],
)
def test_a_folder_of_images(classes, tasks, sizes, tmp_path):
    write_folder(tmp_path, classes)
    stream = benchmarks.load("folder", data_dir=tmp_path, tasks=tasks)
    assert [len(task.classes) for task in stream.tasks] == sizes
    assert stream.class_names == tuple(f"kind {c}" for c in range(classes))
    for i, (task, split) in enumerate(in_both("folder", tmp_path, tasks=tasks)):
        assert len(split.y) == (4, 1, 5)[i % 3] * len(task.classes)
        assert raw(split.x).eq((10 * split.y)[:, None, None, None]).all()


def test_a_folder_that_changed_is_read_again(tmp_path):
    write_folder(tmp_path, 2)
    before = images.folder(tmp_path, "train")
    (tmp_path / "train/kind 0/9.png").write_bytes(png(np.zeros((9, 9), dtype=np.uint8)))
    images.folder.cache_clear()
    assert len(images.folder(tmp_path, "train").y) == len(before.y) + 1


def test_what_is_wrong_with_a_folder_is_said(tmp_path):
    with pytest.raises(DataError, match="pass --data-dir DIR with images in DIR/train/CLASS"):
        benchmarks.load("folder")
    refused("folder", tmp_path, "train is missing: expected a folder of images for each class")
    write_folder(tmp_path, 3)
    with pytest.raises(ValueError, match=r"3 classes: .* \(1, 3\), got 2"):
        benchmarks.load("folder", data_dir=tmp_path, tasks=2)
    (tmp_path / "test/other").mkdir()
    with pytest.raises(DataError, match="the classes of the training part, found other in one"):
        benchmarks.load_test("folder", data_dir=tmp_path)
    (tmp_path / "train/kind 1/3.png").write_bytes(b"no image")
    text = refused("folder", tmp_path, "expected an image, found UnidentifiedImageError")
    assert text.startswith(str(tmp_path / "train/kind 1/3.png"))
    for file in (tmp_path / "train/kind 1").glob("[1-4].png"):
        file.unlink()
    refused("folder", tmp_path, "kind 1: expected at least 2 images, found 1")


def test_features_of_colour_images(tmp_path, monkeypatch):
    monkeypatch.setattr("trainables.benchmarks.base_task.STEPS", 2)
    write_folder(tmp_path, 4)
    stream = benchmarks.load("folder", data_dir=tmp_path, embedder="base_task")
    assert stream.problem.input_shape == (128,)
