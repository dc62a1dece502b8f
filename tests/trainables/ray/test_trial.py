"""A trial: the same numbers however often it is interrupted, and what it says about itself."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import search_spaces
from tests.conftest import EXACTLY
from trainables import benchmarks
from trainables.engine import metrics
from trainables.engine.checkpoint import CheckpointError
from trainables.engine.noise import trial_seed
from trainables.ray import trainable
from trainables.ray.trainable import TrialActor
from trainables.ray.trial import Plan, Trial, block, stream_of

METHODS = search_spaces.names()


def plan(method="sequential", **options) -> Plan:
    return Plan(
        **{"method": method, "benchmark": "gaussian", "scenario": "class", "seed": 3} | options
    )


PLAN = plan()


def quick(method="sequential", **options) -> dict:
    """The default configuration with few steps."""
    default = search_spaces.load(method).DEFAULT
    steps = {name: 7 for name in default if name.endswith("steps") and name != "critic_steps"}
    return default | steps | options


def walked(trial: Trial) -> Trial:
    while not trial.finished:
        assert trial.learn_next() is None
    return trial


@pytest.mark.parametrize("method", METHODS)
def test_a_trial_restored_after_every_task_has_the_numbers_of_an_unbroken_one(method, tmp_path):
    config, file = quick(method), tmp_path / "trial.safetensors"
    whole = walked(Trial(plan(method), config))
    part = Trial(plan(method), config)
    while not part.finished:
        part.learn_next()
        part.save(file)
        learned, part = part, Trial(plan(method), dict(reversed(config.items())))
        part.restore(file)
        assert part.seconds == learned.seconds > 0
    assert part.rows == whole.rows and part.losses == whole.losses and part.seed == whole.seed
    torch.testing.assert_close(part.lane.state, whole.lane.state, **EXACTLY)


@pytest.mark.parametrize("method", METHODS)
def test_a_report_is_flat_scalars_by_the_documented_names(method):
    trial = Trial(plan(method), quick(method))
    about = {"tasks_learned", "seed", "seconds", "memory_bytes", "history"}
    assert set(trial.report()) == about
    for tasks in (1, 2, 3):
        trial.learn_next()
        report = trial.report()
        assert all(isinstance(v, int | float | str) for v in report.values())
        assert report["tasks_learned"] == tasks
        sizes = [len(t.validation.y) for t in trial.stream.tasks[:tasks]]
        measured = metrics.summary(block(trial.rows, tasks), sizes)
        assert {k: report[k] for k in measured} == measured
        accuracies = {f"acc/task_{j:02d}": a for j, a in enumerate(trial.rows[-1])}
        assert len(accuracies) == tasks and accuracies.items() <= report.items()
        losses = {k: v for k, v in report.items() if k.startswith("loss/")}
        assert losses and losses == {f"loss/{k}": v for k, v in trial.losses[-1].items()}
        assert set(report) == about | set(measured) | set(accuracies) | set(losses)
        assert json.loads(report["history"]) == {"accuracy": trial.rows, "losses": trial.losses}
    assert {"joint_accuracy", "average_accuracy", "forgetting", "retained_accuracy"} <= set(report)
    # One validation part is as large as another here: joint accuracy is the mean of the last row.
    assert report["joint_accuracy"] == pytest.approx(np.mean(trial.rows[-1]))


def test_memory_is_what_is_carried_and_for_joint_its_data_too():
    hidden, inputs, classes = 128, 8, 6
    weights = 4 * ((inputs + 1) * hidden + (hidden + 1) * classes)
    assert walked(Trial(plan(), quick())).memory_bytes() == weights
    joint = Trial(plan("joint"), quick("joint"))
    assert joint.memory_bytes() == weights
    for tasks in (1, 2, 3):
        joint.learn_next()
        assert joint.memory_bytes() == weights + tasks * 80 * (4 * inputs + 8)


def test_a_seed_is_a_function_of_study_seed_and_configuration():
    config = quick()
    seed = Trial(plan(), config).seed
    assert seed == trial_seed(3, config) == Trial(plan(), dict(reversed(config.items()))).seed
    assert Trial(plan(seed=4), config).seed != seed != Trial(plan(), quick(lr=0.002)).seed
    assert Trial(plan(), config, seed=11).seed == 11


def test_a_bad_configuration_is_refused():
    with pytest.raises(ValueError, match="no hyperparameter 'lrr': did you mean 'lr'"):
        Trial(plan(), quick(lrr=1.0))


def test_the_checkpoint_of_another_trial_is_refused(tmp_path):
    file = tmp_path / "x"
    trial = Trial(plan(), quick())
    trial.learn_next()
    trial.save(file)
    for other in (
        Trial(plan(), quick(lr=0.5)),
        Trial(plan(seed=4), quick()),
        Trial(plan(), quick(), seed=1),
        Trial(plan("joint"), quick("joint")),
        Trial(plan(), quick(hidden=8)),
    ):
        before = other.report()
        with pytest.raises(CheckpointError, match=f"{file}"):
            other.restore(file)
        assert other.report() == before


# ---- what a search may see (invariant 3) ---------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_search_trial_never_reads_test_data(method, monkeypatch, tmp_path):
    gaussian = benchmarks.BENCHMARKS["gaussian"]
    parts = []

    def guarded(data_dir, part):
        parts.append(part)
        if part != "train":
            raise AssertionError("test data was read")
        return gaussian.source(data_dir, part)

    monkeypatch.setitem(benchmarks.BENCHMARKS, "gaussian", replace(gaussian, source=guarded))
    own = plan(method, seed=91)
    with pytest.raises(AssertionError, match="test data was read"):
        benchmarks.load_test("gaussian", seed=91)  # the guard works
    stream_of.cache_clear()
    actor = act(tmp_path, plan=own, hyper=quick(method))
    reports = [actor.step() for _ in range(3)]
    stream_of.cache_clear()
    assert reports[-1]["done"] and "failure" not in reports[-1]
    assert parts[0] == "test" and set(parts[1:]) == {"train"}


# ---- as a Tune trial -----------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def without_ray(monkeypatch):
    monkeypatch.setattr(trainable.ray, "get_gpu_ids", list)
    monkeypatch.setattr(trainable, "setproctitle", titles.append)
    titles.clear()


titles = []  # of the actor's process


def act(folder, number=5, hyper=None, **options) -> TrialActor:
    """An actor without Ray, with a trial begun."""
    actor = object.__new__(TrialActor)
    actor.begin(config_of(folder, number, hyper or quick(), **options))
    return actor


def config_of(folder, number, hyper, plan=PLAN):
    about = {"plan": plan._asdict(), "checkpoints": str(folder)}
    return {"number": number, "hyper": hyper, **about}


def without_time(report):
    return {k: v for k, v in report.items() if k != "seconds"}


def test_an_actor_learns_a_task_a_step_and_says_when_it_is_done(tmp_path):
    actor = act(tmp_path)
    reports = [actor.step() for _ in range(3)]
    assert [(r["tasks_learned"], r["done"]) for r in reports] == [(1, False), (2, False), (3, True)]
    assert (tmp_path / "000005.safetensors").is_file()
    assert repr(actor) == "trials from 5 on"
    assert [title.partition(" ")[2] for title in titles] == [f"trial 5 task {t}" for t in (1, 2, 3)]
    assert actor.reset_config(config_of(tmp_path, 6, quick(lr=0.002)))  # the process is kept
    again = actor.step()
    assert again["tasks_learned"] == 1 and again["seed"] != reports[0]["seed"]


def test_an_actor_reports_what_it_restored_before_it_goes_on(tmp_path):
    """The report of the last task may have died with the driver: the scheduler has to hear it."""
    whole = act(tmp_path / "whole")
    expected = [without_time(whole.step()) for _ in range(3)]
    for heard in (1, 2, 3):
        killed = act(tmp_path / f"{heard}")
        for _ in range(heard):
            killed.step()
        resumed = act(tmp_path / f"{heard}")
        found = [without_time(resumed.step()) for _ in range(4 - heard)]
        assert found == expected[heard - 1 :]


@pytest.mark.parametrize("damage", [b"", b"garbage"])
def test_a_damaged_checkpoint_means_to_start_over(tmp_path, damage, caplog):
    (tmp_path / "000005.safetensors").write_bytes(damage)
    assert act(tmp_path).step()["tasks_learned"] == 1
    assert "trial 5 starts over: cannot read checkpoint" in caplog.text


def test_a_trial_that_diverges_ends_with_its_reason(tmp_path):
    actor = act(tmp_path, hyper=quick(lr=float("inf")))
    report = actor.step()
    assert report["done"] and report["tasks_learned"] == 0
    assert "cross_entropy became nan in task 0, phase train" in report["failure"]
    assert not list(tmp_path.iterdir())


def test_a_trial_that_raises_ends_with_its_reason(tmp_path):
    actor = act(tmp_path)
    actor.step()
    actor.trial.learn_next = lambda: 1 / 0
    report = actor.step()
    assert report["done"] and report["tasks_learned"] == 1
    assert report["failure"] == "ZeroDivisionError: division by zero"
    assert json.loads(report["history"])["accuracy"] == actor.trial.rows


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hyper": {"lrr": 1}}, "ValueError: trainables.sequential has no hyperparameter 'lrr'"),
        ({"plan": plan(benchmark="none")}, "ValueError: unknown benchmark 'none'"),
        ({"plan": plan(method="none")}, "ModuleNotFoundError"),
    ],
)
def test_a_trial_that_cannot_begin_fails_at_its_first_step(tmp_path, change, reason):
    actor = act(tmp_path, **change)
    report = actor.step()
    assert reason in report.pop("failure")
    assert report == {"tasks_learned": 0, "done": True}
    actor.save_checkpoint(str(tmp_path))  # Tune may ask for it
    actor.load_checkpoint(str(tmp_path))


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_trial(tmp_path):
    (tmp_path / "file").touch()
    actor = act(tmp_path / "file")
    reports = [actor.step() for _ in range(3)]
    assert [r["tasks_learned"] for r in reports] == [1, 2, 3] and reports[-1]["done"]
    assert all("cannot write checkpoint" in r["unsaved"] for r in reports)
    assert not any("failure" in r for r in reports)


def test_tunes_own_checkpoints_work(tmp_path):
    actor = act(tmp_path / "a")
    actor.step()
    actor.save_checkpoint(str(tmp_path))
    other = act(tmp_path / "b")
    other.load_checkpoint(str(tmp_path))
    assert without_time(other.step()) == without_time(actor.step())
