"""A checkpoint: the state exactly, whole or not at all, readable by anyone."""

import json
import pickletools
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.conftest import EXACTLY, F64
from trainables.engine import checkpoint
from trainables.engine.checkpoint import CheckpointError, load, save, size_in_bytes


class State(NamedTuple):
    params: dict[str, Tensor]
    snapshot: dict[str, Tensor]
    count: Tensor


ABOUT = {
    "config": {"lr": 0.1 + 0.2, "order": "a"},
    "accuracy": [[1.0], [0.5, 1 / 3]],
    "seed": 2**62,
}


def state() -> State:
    weights = {"w": torch.tensor([[0.1, float("-inf")]], dtype=F64), "b": torch.rand(3)}
    return State(weights, weights, torch.tensor(7))  # a snapshot that shares its memory


def blank() -> State:
    """Of the same structure, with other values."""
    weights = {"w": torch.zeros(1, 2, dtype=F64), "b": torch.zeros(3)}
    return State(weights, {k: v + 1 for k, v in weights.items()}, torch.tensor(0))


def test_what_is_saved_comes_back_exactly(tmp_path):
    file, saved = tmp_path / "new" / "folder" / "1.safetensors", state()
    save(file, saved, ABOUT)
    loaded, about = load(file, blank())
    torch.testing.assert_close(loaded, saved, **EXACTLY)
    assert about == ABOUT
    assert [f.name for f in file.parent.iterdir()] == ["1.safetensors"]


def test_views_are_saved_as_they_look(tmp_path):
    whole = torch.arange(6.0).view(2, 3)
    save(tmp_path / "x", {"transposed": whole.T, "row": whole[1]}, {})
    loaded, _ = load(tmp_path / "x", {"transposed": torch.zeros(3, 2), "row": torch.zeros(3)})
    torch.testing.assert_close(loaded, {"transposed": whole.T, "row": whole[1]}, **EXACTLY)


def test_the_file_is_plain_safetensors(tmp_path):
    file = tmp_path / "x"
    save(file, state(), ABOUT)
    assert sorted(t.numel() for t in load_file(file).values()) == [1, 2, 2, 3, 3]
    content = file.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert json.loads(header["__metadata__"]["about"]) == ABOUT
    with pytest.raises(ValueError):
        list(pickletools.genops(content))


def refused(file, like) -> str:
    with pytest.raises(CheckpointError) as error:
        load(file, like)
    message = str(error.value)
    assert str(file) in message and "\n" not in message
    return message


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(tmp_path, kept):
    file = tmp_path / "x"
    save(file, state(), ABOUT)
    file.write_bytes(file.read_bytes()[:kept])
    assert "cannot read" in refused(file, blank())


def test_what_is_no_checkpoint_is_refused(tmp_path):
    file = tmp_path / "x"
    assert "cannot read" in refused(file, blank())  # missing
    assert "cannot read" in refused(tmp_path, blank())  # a folder
    file.write_bytes(b"\x80\x04garbage" * 20)
    assert "cannot read" in refused(file, blank())


@pytest.mark.parametrize(
    "metadata", [None, {"format": "2", "about": "{}"}, {"format": "1"}, {"about": "{}"}]
)
def test_a_foreign_safetensors_file_is_refused(tmp_path, metadata):
    file = tmp_path / "x"
    save_file({"w": torch.zeros(1)}, file, metadata)
    assert "is not of format 1" in refused(file, {"w": torch.zeros(1)})


@pytest.mark.parametrize(
    ("like", "found"),
    [
        (lambda s: s._replace(count=torch.zeros(2)), "expected .count (2,) torch.float32"),
        (lambda s: s._replace(count=torch.tensor(0.0)), "found () torch.int64"),
        (lambda s: s._replace(params=s.params | {"c": torch.zeros(1)}), "found nothing"),
        (lambda s: s._replace(params={"w": s.params["w"]}), "unknown tensors: [\".params['b']\"]"),
    ],
)
def test_a_state_of_another_method_or_shape_is_refused(tmp_path, like, found):
    file = tmp_path / "x"
    save(file, state(), ABOUT)
    assert found in refused(file, like(blank()))


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    file, old = tmp_path / "1.safetensors", state()
    save(file, old, ABOUT)

    def fail(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(CheckpointError, match="disk full"):
        save(file, blank(), {})
    monkeypatch.undo()
    loaded, about = load(file, blank())
    torch.testing.assert_close(loaded, old, **EXACTLY)
    assert about == ABOUT
    save(file, blank(), {})  # what the failed write left is in nobody's way
    assert load(file, old)[1] == {}


def test_size_in_bytes():
    assert size_in_bytes(state()) == 2 * (2 * 8 + 3 * 4) + 8
    assert size_in_bytes({"a": 3, "b": ()}) == 0
