"""Reading the birds: small files of the format, and what is said where they are not it."""

import re

import numpy as np
import pytest
import torch

from trainables import benchmarks
from trainables.benchmarks import DataError, cub

PER_CLASS = {"train": 10, "test": 3}
IDS = np.arange(200, 100, -1)  # label 0 is kind 200 of the list, label 99 kind 101


def arrays():
    """Features c + i / 16 of the i-th example of class c, training and test examples mixed."""
    n = sum(PER_CLASS.values())
    label, i = np.divmod(np.random.default_rng(0).permutation(100 * n), n)
    features = (label + i / 16)[:, None].repeat(512, 1)
    return {
        "features": features.astype(np.float16),
        "label": label.astype(np.int16),
        "is_train": i < PER_CLASS["train"],
        "class_ids": IDS.astype(np.int16),
    }


def percentages():
    """Attribute a of kind k: (k + a) % 101."""
    return (np.arange(1, 201)[:, None] + np.arange(312)) % 101


def write(root, **changes):
    """A data folder; ``changes`` replace arrays of the .npz file."""
    for name in (cub.FEATURES, cub.CLASSES, cub.ATTRIBUTES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(root / cub.FEATURES, **arrays() | changes)
    names = (f"{k} {k:03}.Bird_of_kind_{k}\n" for k in range(1, 201))
    (root / cub.CLASSES).write_text("".join(names))
    np.savetxt(root / cub.ATTRIBUTES, percentages(), fmt="%.2f")


def test_what_is_read(tmp_path):
    write(tmp_path)
    stream = benchmarks.load("cub100", data_dir=tmp_path, seed=4)
    test = benchmarks.load_test("cub100", data_dir=tmp_path, seed=4)
    assert stream.problem.input_shape == (512,)
    assert stream.class_names[0] == "Bird of kind 200"
    assert stream.class_names[99] == "Bird of kind 101"
    assert sorted(sum((task.classes for task in stream.tasks), ())) == list(range(100))
    for task, held in zip(stream.tasks, test, strict=True):
        assert len(task.classes) == 10
        x = torch.cat([task.train.x, task.validation.x])
        y = torch.cat([task.train.y, task.validation.y])
        assert len(task.validation.y) == 20
        for c in task.classes:
            found = sorted(x[y == c, 511].tolist()), sorted(held.x[held.y == c, 0].tolist())
            expected = [[(c + i / 16) / 12 for i in rows] for rows in (range(10), range(10, 13))]
            assert [*map(pytest.approx, found)] == expected


def test_attributes_follow_the_labels(tmp_path):
    write(tmp_path)
    problem = benchmarks.load("cub100", data_dir=tmp_path, attributes="both").problem
    rows = percentages()[IDS - 1]
    expected = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(problem.attributes, expected, rtol=1e-6)
    assert problem.attributes.dtype == torch.float32


def test_the_attributes_are_not_opened_unasked(tmp_path):
    write(tmp_path)
    (tmp_path / cub.ATTRIBUTES).unlink()
    assert benchmarks.load("cub100", data_dir=tmp_path).problem.attributes is None


def test_the_declaration_is_that_of_the_files(tmp_path):
    write(tmp_path)
    declared = benchmarks.BENCHMARKS["cub100"]
    names = cub.photographs(tmp_path, "train").class_names
    assert sum(declared.classes) == len(names)


# ---- missing and corrupt files -------------------------------------------------------------------


def refused(root, **options) -> str:
    with pytest.raises(DataError) as error:
        benchmarks.load("cub100", **{"data_dir": root, "attributes": "both"} | options)
    assert "\n" not in str(error.value)
    assert "--data-dir" in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "what"),
    [(cub.FEATURES, "features of"), (cub.CLASSES, "names of"), (cub.ATTRIBUTES, "percentages of")],
)
def test_a_missing_file_is_named(tmp_path, name, what):
    write(tmp_path)
    (tmp_path / name).unlink()
    said = refused(tmp_path)
    assert said.startswith(f"{tmp_path / name} is missing: expected {what}")
    assert "not downloaded" in said


def test_without_a_folder():
    assert f"pass --data-dir DIR with DIR/{cub.FEATURES}" in refused(None)


WRONG = {
    "features \\(N, 512\\) float": {"features": np.zeros((1300, 512), dtype=np.int16)},
    "features \\(N, 512\\)": {"features": np.zeros((1300, 511), dtype=np.float16)},
    "label \\(N,\\)": {"label": np.zeros(1299, dtype=np.int16)},
    "is_train \\(N,\\) bool": {"is_train": np.ones(1300, dtype=np.uint8)},
    "class_ids \\(100,\\)": {"class_ids": np.arange(1, 100)},
    "class_ids 1 to 200, found 0 to 99": {"class_ids": np.arange(100)},
    "finite features": {"features": np.full((1300, 512), np.nan, dtype=np.float16)},
    "labels 0 to 99, .*found 10 others and 0": {"label": arrays()["label"] + 1},
    "at least 2 train examples .*found 0 others and 0": {"is_train": np.zeros(1300, dtype=bool)},
    "features, label, is_train, class_ids, found ValueError": {
        "label": np.array([None], dtype=object)
    },
}


@pytest.mark.parametrize("message", WRONG)
def test_arrays_that_are_not_the_birds(tmp_path, message):
    write(tmp_path, **WRONG[message])
    said = refused(tmp_path)
    assert said.startswith(f"{tmp_path / cub.FEATURES}: expected ")
    assert re.search(message, said)


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04 half", None])
def test_a_file_that_is_no_npz(tmp_path, content):
    write(tmp_path)
    file = tmp_path / cub.FEATURES
    file.write_bytes(file.read_bytes()[:-500] if content is None else content)
    assert refused(tmp_path).startswith(f"{file}: expected an .npz file with features, label")


def test_a_single_array_is_no_npz(tmp_path):
    write(tmp_path)
    with (tmp_path / cub.FEATURES).open("wb") as file:
        np.save(file, np.zeros(3))
    assert "an .npz file" in refused(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (cub.CLASSES, b"1 001.Black_footed_Albatross\n", "expected a line '200 NUMBER.NAME'"),
        (cub.CLASSES, b"\xff\xfe", "a readable text"),
        (cub.ATTRIBUTES, b"", "200 lines of 312 numbers, found a table of shape (0,)"),
        (cub.ATTRIBUTES, b"1 2\n3\n", "200 lines of 312 numbers"),
        (cub.ATTRIBUTES, b"many\n" * 200, "200 lines of 312 numbers"),
        (cub.ATTRIBUTES, (b"1 " * 312 + b"\n") * 199, "found a table of shape (199, 312)"),
        (cub.ATTRIBUTES, (b"nan " * 312 + b"\n") * 200, "percentages"),
        (cub.ATTRIBUTES, (b"101 " * 312 + b"\n") * 200, "percentages"),
        (cub.ATTRIBUTES, (b"0 " * 312 + b"\n") * 200, "some above 0 in each line"),
    ],
)
def test_texts_that_are_not_those_of_the_birds(tmp_path, name, content, message):
    write(tmp_path)
    (tmp_path / name).write_bytes(content)
    said = refused(tmp_path)
    assert said.startswith(f"{tmp_path / name}: expected ")
    assert message in said
