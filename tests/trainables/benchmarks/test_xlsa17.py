"""Reading the files of zero-shot learning: small ones of the format, and broken ones."""

import numpy as np
import pytest
import torch
from scipy.io import savemat

from trainables import benchmarks
from trainables.benchmarks import DataError, xlsa17

PER_CLASS = 10
SHAPES = {"cub200": ("CUB", 200, 312), "awa2": ("AWA2", 50, 85)}


def table(classes, attributes):
    return 1.0 + (np.arange(attributes)[:, None] * 7 + np.arange(classes)) % 11


def write(root, benchmark, **changes):
    """Example i of class c has the features c + i / 16; the classes are mixed."""
    name, classes, told = SHAPES[benchmark]
    folder = root / "xlsa17/data" / name
    folder.mkdir(parents=True, exist_ok=True)
    y, i = np.divmod(np.random.default_rng(0).permutation(classes * PER_CLASS), PER_CLASS)
    x = np.repeat((y + i / 16)[None], 2048, 0)
    names = np.array([[f"{c:03}.Kind_{c}"] for c in range(1, classes + 1)], dtype=object)
    labels = y[:, None] + 1.0  # doubles from 1, as in the real files
    savemat(folder / "res101.mat", {"features": x, "labels": labels} | changes)
    about = {"att": table(classes, told), "allclasses_names": names}
    savemat(folder / "att_splits.mat", about | changes)
    return folder


@pytest.mark.parametrize(
    ("benchmark", "files", "sizes"),
    [
        ("cub200", "cub200", [20] * 10),
        ("cub200_100_20", "cub200", [100] + [20] * 5),
        ("awa2", "awa2", [5] * 10),
    ],
)
def test_what_is_read(benchmark, files, sizes, tmp_path):
    write(tmp_path, files)
    options = {"data_dir": tmp_path, "seed": 4, "attributes": "both"}
    stream, test = (d(benchmark, **options) for d in (benchmarks.load, benchmarks.load_test))
    _, classes, told = SHAPES[files]
    assert [len(task.classes) for task in stream.tasks] == sizes
    assert stream.problem.input_shape == (2048,)
    assert stream.class_names == tuple(f"Kind {c}" for c in range(1, classes + 1))
    for task, held in zip(stream.tasks, test, strict=True):
        parts = [(task.train, 6), (task.validation, 2), (held, 2)]
        for split, count in parts:
            assert split.y.bincount(minlength=classes)[list(task.classes)].eq(count).all()
            assert torch.equal(split.x[:, 3].floor().long(), split.y)
        for c in task.classes:  # every example is in one part
            found = torch.cat([split.x[split.y == c, 0] for split, _ in parts])
            expected = c + torch.arange(PER_CLASS) / 16
            assert torch.equal(found.sort()[0], expected)
    rows = table(classes, told).T
    expected = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(stream.problem.attributes, expected, rtol=1e-6)


def test_the_test_part_does_not_depend_on_the_seed(tmp_path):
    write(tmp_path, "awa2")
    found = [benchmarks.load_test("awa2", data_dir=tmp_path, seed=s) for s in (1, 2)]
    rows = [torch.cat([split.x[:, 0] for split in splits]).sort()[0] for splits in found]
    assert torch.equal(*rows)


def test_names_of_animals_read_well(tmp_path):
    names = np.array([[f"kind+{c}"] for c in range(50)], dtype=object)
    write(tmp_path, "awa2", allclasses_names=names)
    assert xlsa17.awa2(tmp_path, "train").class_names[7] == "kind 7"


# ---- missing and corrupt files -------------------------------------------------------------------


def refused(root, match):
    with pytest.raises(DataError, match=match) as error:
        benchmarks.load("awa2", data_dir=root, attributes="both")
    assert "\n" not in str(error.value)
    assert "--data-dir" in str(error.value)


@pytest.mark.parametrize("file", ["res101.mat", "att_splits.mat"])
def test_a_missing_file_is_named_and_where_to_get_it(file, tmp_path):
    refused(None, "AWA2 is not downloaded: .*zsl-benchmark")
    path = write(tmp_path, "awa2") / file
    path.unlink()
    refused(tmp_path, f"{path} is missing, .*zsl-benchmark")


@pytest.mark.parametrize("file", ["res101.mat", "att_splits.mat"])
def test_a_damaged_file_is_named(file, tmp_path):
    path = write(tmp_path, "awa2") / file
    path.write_bytes(path.read_bytes()[:200])
    refused(tmp_path, f"{path}: expected a .mat file with")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.arange(500)[:, None] % 49 + 1}, "at least 3 examples of each label 1 to 50"),
        ({"labels": np.arange(500)[:, None] % 51}, "labels 0 to 50"),
        ({"labels": np.arange(1, 50)[:, None]}, "features \\(D, N\\) and N labels, .*49 labels"),
        ({"features": np.full((2048, 500), np.nan)}, "finite features"),
        ({"att": np.zeros((85, 50))}, "some of each class not 0"),
        ({"att": np.ones((85, 49))}, r"att of shape \(A, 50\), found \(85, 49\)"),
        ({"allclasses_names": np.array([["a"]], dtype=object)}, "of 50 classes, found 1"),
    ],
)
def test_other_content_is_refused(changes, message, tmp_path):
    write(tmp_path, "awa2", **changes)
    refused(tmp_path, message)
