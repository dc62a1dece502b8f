"""What is kept for pictures: the same z at every task, and whole files or none."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.trainables.ray.test_trial import learn_next, plan, quick
from trainables.engine.checkpoint import CheckpointError
from trainables.ray import generated
from trainables.ray.trial import Trial


@pytest.fixture
def file(tmp_path):
    return tmp_path / "generated" / "1000000.safetensors"


@pytest.fixture
def trial():
    return Trial(plan("lgm_vae"), quick("lgm_vae"))


def keep_all(trial, file):
    """The file's tensors after every task."""
    found = []
    while not trial.finished:
        learn_next(trial)
        generated.keep(trial, str(file), "trial 17")
        found.append(load_file(file))
    return found


def test_samples_of_every_task_are_there_and_stay(trial, file):
    first, second, last = keep_all(trial, file)
    for t, then in enumerate((first, second, last)):
        seen = trial.stream.seen(t).nonzero()[:, 0]
        names = {"real"} | {f"task_{i:02d}" for i in range(t + 1)}
        assert set(then) == {f"{name}.{part}" for name in names for part in "xy"}
        assert torch.equal(then[f"task_{t:02d}.y"], seen.repeat_interleave(10))
        assert then[f"task_{t:02d}.x"].shape == (10 * len(seen), 8)
        assert torch.equal(then["task_00.x"], last["task_00.x"])
    with safe_open(file, "pt") as opened:
        about = opened.metadata()
    assert about == {"label": "trial 17", "class_names": json.dumps(trial.stream.class_names)}
    assert [f.name for f in file.parent.iterdir()] == [file.name]


def test_a_class_has_the_same_z_after_every_task_and_no_other_class_has_it(
    trial, file, monkeypatch
):
    method = trial.engine.method._replace(sample=lambda state, y, z: z)
    monkeypatch.setattr(trial.engine, "method", method)
    last = keep_all(trial, file)[-1]
    by_class = {int(c): last["task_02.x"][last["task_02.y"] == c] for c in last["task_02.y"]}
    for t in range(2):
        for c in last[f"task_{t:02d}.y"].unique():
            x = last[f"task_{t:02d}.x"][last[f"task_{t:02d}.y"] == c]
            assert torch.equal(x, by_class[int(c)])
    assert len(torch.cat(list(by_class.values())).unique(dim=0)) == 60


def test_real_examples_are_the_first_of_each_class(trial, file, monkeypatch):
    monkeypatch.setattr(generated, "REAL", 7)
    found = keep_all(trial, file)[0]
    assert found["real.y"].tolist() == [c for c in range(6) for _ in range(7)]
    for task in trial.stream.tasks:
        for c in task.classes:
            x = task.validation.x[task.validation.y == c]
            assert torch.equal(found["real.x"][found["real.y"] == c], x[:7])


def test_reconstructions_are_of_the_first_real_examples_of_the_classes_seen(
    trial, file, monkeypatch
):
    method = trial.engine.method._replace(sample=None, reconstruct=lambda state, x: -x)
    monkeypatch.setattr(trial.engine, "method", method)
    last = keep_all(trial, file)[-1]
    assert set(last) == {
        f"{name}.{part}"
        for name in ("real", *(f"reconstructed_{t:02d}" for t in range(3)))
        for part in "xy"
    }
    for t in range(3):
        x, y = last[f"reconstructed_{t:02d}.x"], last[f"reconstructed_{t:02d}.y"]
        seen = trial.stream.seen(t).nonzero()[:, 0]
        assert torch.equal(y, seen.repeat_interleave(5))
        for c in seen:
            assert torch.equal(x[y == c], -last["real.x"][last["real.y"] == c][:5])


def test_a_method_without_a_generator_has_no_file(file):
    trial = Trial(plan(), quick())
    learn_next(trial)
    generated.keep(trial, str(file), "default")
    assert not file.parent.exists()


def test_what_an_earlier_trial_left_under_the_same_name_is_gone(trial, file):
    keep_all(Trial(plan("lgm_vae"), quick("lgm_vae"), seed=5), file)
    learn_next(trial)
    generated.keep(trial, str(file), "trial 17")
    assert set(load_file(file)) == {"real.x", "real.y", "task_00.x", "task_00.y"}


@pytest.mark.parametrize("damage", [None, b"", b"garbage"])
def test_a_file_that_cannot_be_added_to_is_named_in_one_line(trial, file, damage):
    learn_next(trial), learn_next(trial)
    file.parent.mkdir()
    if damage is not None:
        file.write_bytes(damage)
    with pytest.raises(CheckpointError, match=f"cannot add to {file}: ") as error:
        generated.keep(trial, str(file), "trial 17")
    assert "\n" not in str(error.value)
