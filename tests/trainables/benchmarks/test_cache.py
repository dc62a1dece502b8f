"""What is kept on disk: made once, the last ones, whole or anew."""

import os

import pytest
import torch

from trainables.benchmarks.cache import kept
from trainables.engine.errors import DataError


def number(value: float, calls: list):
    def make():
        calls.append(value)
        return {"x": torch.tensor([value])}

    return make


def test_it_is_made_once_and_a_damaged_file_anew(cache):
    calls = []
    for _ in range(2):
        assert kept("f", "a", number(1.0, calls))["x"].tolist() == [1.0]
    assert calls == [1.0]
    (cache / "f" / "a.safetensors").write_bytes(b"{ no")
    assert kept("f", "a", number(2.0, calls))["x"].tolist() == [2.0]


def test_the_files_used_last_stay(cache):
    for age, name in enumerate("cba"):
        kept("f", name, number(0.0, []), last=3)
        os.utime(cache / "f" / f"{name}.safetensors", (1000 - age, 1000 - age))
    mapped = kept("f", "b", number(9.0, []), last=3)["x"]  # now used last, with its old content
    kept("f", "d", number(1.0, []), last=2)
    assert {file.stem for file in (cache / "f").glob("*.safetensors")} == {"b", "d"}
    assert mapped.tolist() == [0.0]
    kept("f", "d", number(1.0, []), last=1)  # nothing is made, so nothing goes
    assert len([*(cache / "f").glob("*.safetensors")]) == 2


def test_what_making_it_says_is_passed_on_and_leaves_nothing(cache):
    def make():
        raise FileNotFoundError("no train.mat")

    for _ in range(2):  # the lock is free again
        with pytest.raises(FileNotFoundError, match=r"train\.mat"):
            kept("f", "a", make)
    assert not [*(cache / "f").glob("*.safetensors")]


def test_a_folder_that_cannot_be_written_is_one_line(cache):
    cache.write_text("a file")
    with pytest.raises(DataError, match=r"cannot keep f in .* make it writable"):
        kept("f", "a", number(1.0, []))
