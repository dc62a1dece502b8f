"""An engine without Ray: what it answers, and what it never does."""

import asyncio
import ctypes
import json
import sys
import threading
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.conftest import EXACTLY
from tests.trainables.ray.test_trial import METHODS, plan, quick
from trainables import benchmarks
from trainables.engine.checkpoint import CheckpointError
from trainables.engine.packs import Engine
from trainables.ray import engine
from trainables.ray.trial import Trial, loaded, stream_of


def config_of(folder, number=5, hyper=None, own=None, **more):
    own = own or plan()
    about = {"plan": own._asdict(), "checkpoints": str(folder)}
    return {"number": number, "hyper": hyper or quick(own.method), **about, **more}


def learn(actor, config):
    return asyncio.run(actor.learn(config))


def walk(actor, config):
    return asyncio.run(actor.walk(config))


def of_the_trial(report):
    """A report without what depends on the machine and on neighbours."""
    apart = ("seconds", "lanes", "started", "narrowed")
    return {k: v for k, v in report.items() if k not in apart}


def alone(folder, start, *configs):
    """All reports of each trial, trained by itself."""
    return [
        [of_the_trial(learn(actor, config | {"checkpoints": str(folder / "alone")})) for _ in "123"]
        for config in configs
        for actor in [start()]
    ]


def failing_packs(monkeypatch, fails, error):
    """Raise in the packs for which ``fails(seats)``; returns the widths of the others."""
    widths, run = [], Engine._run

    def _run(self, phase, steps, seats):
        if fails(seats):
            raise error
        run(self, phase, steps, seats)
        widths.append(len(seats))

    monkeypatch.setattr(Engine, "_run", _run)
    return widths


# ---- one trial -----------------------------------------------------------------------------------


def test_an_engine_learns_a_task_a_call_and_says_when_a_trial_is_done(start, titles, tmp_path):
    actor = start()
    assert asyncio.run(actor.ready()) is None
    config = config_of(tmp_path)
    reports = [learn(actor, config) for _ in range(3)]
    assert [(r["tasks_learned"], r["done"]) for r in reports] == [(1, False), (2, False), (3, True)]
    assert [r["lanes"] for r in reports] == [1, 1, 1]
    assert not any({"failure", "unsaved", "narrowed"} & set(r) for r in reports)
    assert all(isinstance(v, int | float | str) for r in reports for v in r.values())
    assert (tmp_path / "000005.safetensors").is_file()
    assert repr(actor) == "engine of sequential on cpu"
    again = learn(actor, config_of(tmp_path, 6, quick(lr=0.002)))
    assert again["tasks_learned"] == 1 and again["seed"] != reports[0]["seed"]
    asyncio.run(actor.leave(6))  # the title comes after the answer
    trials = [title.removeprefix("ray::sequential engine, ") for title in titles]
    assert trials == ["1 trials", "1 trials", "0 trials", "1 trials"]


def test_a_seed_of_the_configuration_takes_the_place_of_its_own(start, tmp_path):
    own = learn(start(), config_of(tmp_path / "a"))
    given = learn(start(), config_of(tmp_path / "b", seed=11))
    assert given["seed"] == 11 != own["seed"] and given["history"] != own["history"]


def test_an_engine_reports_what_it_restored_before_it_goes_on(start, tmp_path):
    """The report of the last task may have died with the driver: the scheduler has to hear it."""
    (expected,) = alone(tmp_path, start, config_of(tmp_path))
    for heard in (1, 2, 3):
        config = config_of(tmp_path / f"{heard}")
        killed = start()
        for _ in range(heard):
            learn(killed, config)
        resumed = start()
        found = [of_the_trial(learn(resumed, config)) for _ in range(4 - heard)]
        assert found == expected[heard - 1 :]
        assert not resumed.trials and not resumed.seats


@pytest.mark.parametrize("damage", [b"", b"garbage"])
def test_a_damaged_checkpoint_means_to_start_over(start, tmp_path, damage, caplog):
    (tmp_path / "000005.safetensors").write_bytes(damage)
    actor, config = start(), config_of(tmp_path)
    assert [learn(actor, config)["tasks_learned"] for _ in range(3)] == [1, 2, 3]
    assert "trial starts over: cannot read checkpoint" in caplog.text


def test_a_checkpoint_of_another_trial_means_to_start_over(start, tmp_path, caplog):
    learn(start(), config_of(tmp_path, hyper=quick(lr=0.002)))
    assert learn(start(), config_of(tmp_path))["tasks_learned"] == 1
    assert "trial starts over: checkpoint" in caplog.text and "of another trial" in caplog.text


def test_a_trial_that_diverges_ends_with_its_reason(start, tmp_path):
    actor = start()
    report = learn(actor, config_of(tmp_path, hyper=quick(lr=float("inf"))))
    assert report["done"] and report["tasks_learned"] == 0
    assert "cross_entropy became nan in task 0, phase train" in report["failure"]
    assert len(json.loads(report["history"])["losses"]) == 1
    assert not list(tmp_path.iterdir())
    assert not actor.trials and not actor.seats


@pytest.mark.parametrize("where", ["begin_next", "end"])
def test_a_trial_that_raises_ends_with_its_reason(start, tmp_path, where, monkeypatch):
    actor, config = start(), config_of(tmp_path)
    first = learn(actor, config)

    def fail(*_):
        raise ValueError("two\nlines")

    with monkeypatch.context() as patch:
        patch.setattr(Trial, where, fail)
        report = learn(actor, config)
    assert report["done"] and report["tasks_learned"] == 1
    assert report["failure"] == "ValueError: two lines"
    assert report["history"] == first["history"]
    assert not actor.trials and not actor.seats
    assert learn(actor, config_of(tmp_path, 6))["tasks_learned"] == 1  # the engine lives on


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hyper": {"lrr": 1}}, "ValueError: trainables.sequential has no hyperparameter 'lrr'"),
        ({"plan": plan(benchmark="none")}, "ValueError: unknown benchmark 'none'"),
        ({"plan": plan(method="none")}, "ModuleNotFoundError"),
    ],
)
def test_a_trial_that_cannot_begin_fails_at_its_first_task(start, tmp_path, change, reason):
    change = {k: v._asdict() if k == "plan" else v for k, v in change.items()}
    actor = start()
    report = learn(actor, config_of(tmp_path) | change)
    assert reason in report.pop("failure")
    assert report == {"tasks_learned": 0, "done": True}
    assert not actor.trials
    assert learn(actor, config_of(tmp_path))["tasks_learned"] == 1


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_trial(start, tmp_path):
    (tmp_path / "file").touch()
    actor, config = start(), config_of(tmp_path / "file")
    reports = [learn(actor, config) for _ in range(3)]
    assert [r["tasks_learned"] for r in reports] == [1, 2, 3] and reports[-1]["done"]
    assert all("cannot write " in r["unsaved"] for r in reports)
    assert not any("failure" in r for r in reports)


# ---- whole walks, as the final phase asks for ----------------------------------------------------


def test_a_walk_ends_with_the_stream_and_saves_after_each_task(start, tmp_path, monkeypatch):
    saved, save = [], Trial.save

    def spied(trial, path):
        save(trial, path)
        saved.append((trial.tasks_learned, path.name))

    config = config_of(tmp_path, seed=11)
    ((*_, expected),) = alone(tmp_path, start, config)
    monkeypatch.setattr(Trial, "save", spied)
    report = walk(start(), config)
    assert saved == [(task, "000005.safetensors") for task in (1, 2, 3)]
    assert of_the_trial(report) == expected and report["done"]
    assert report["started"].tzinfo is not None
    again = walk(start(), config)  # of a trial that has learned all
    assert of_the_trial(again) == expected
    assert len(saved) == 4


def test_a_walk_that_fails_ends_there(start, tmp_path):
    report = walk(start(), config_of(tmp_path, hyper=quick(lr=float("inf"))))
    assert report["done"] and "became nan in task 0" in report["failure"]


@pytest.mark.parametrize("packs", range(1, 6))
def test_a_walk_goes_on_after_its_process_was_killed_inside_a_task(
    packs, start, tmp_path, monkeypatch, new_process
):
    config = config_of(tmp_path, hyper=quick(steps=40))  # two packs a task: of 32 and 8 steps
    ((*_, expected),) = alone(tmp_path, start, config)
    ran, died = [], threading.Event()

    def killed(seats):
        if len(ran) == packs:
            died.set()
            sys.exit()  # the training thread: nobody answers
        ran.append(seats)

    async def until_killed():
        walking = asyncio.ensure_future(start().walk(config))
        assert await asyncio.to_thread(died.wait, 60)
        walking.cancel()

    with monkeypatch.context() as patch:
        failing_packs(patch, killed, None)
        asyncio.run(until_killed())
    assert (tmp_path / "000005.safetensors").exists() == (packs > 1)
    new_process()
    widths = failing_packs(monkeypatch, lambda seats: False, None)
    assert of_the_trial(walk(start(), config)) == expected
    assert len(widths) == 6 - packs // 2 * 2  # what was saved is not learned again


def test_the_test_row_is_of_the_last_state_on_test_data(start, tmp_path):
    config = config_of(tmp_path, seed=11)
    report = walk(start(), config)
    row, examples, quality = asyncio.run(start().test_row(config))
    splits = benchmarks.load_test("gaussian", **plan().benchmark_options())
    assert examples == [len(split.y) for split in splits] and quality == {}
    trial = Trial(plan(), quick(), 11)
    trial.restore(tmp_path / "000005.safetensors")
    assert row == trial.evaluate(splits)
    assert row != json.loads(report["history"])["accuracy"][-1]


def test_the_test_row_of_a_trial_that_is_not_there_raises(start, tmp_path):
    actor = start()
    with pytest.raises(CheckpointError, match="cannot read checkpoint"):
        asyncio.run(actor.test_row(config_of(tmp_path)))
    assert learn(actor, config_of(tmp_path))["tasks_learned"] == 1


# ---- generators ----------------------------------------------------------------------------------


def generating(folder, **more):
    kept = {"file": str(folder / "generated" / "5.safetensors"), "label": "default"}
    own = plan("lgm_vae", quality=True)
    return config_of(folder, own=own, generated=kept, seed=11, **more)


def test_a_walk_measures_and_keeps_what_is_generated(start, tmp_path):
    config = generating(tmp_path)
    report = walk(start(plan("lgm_vae")), config)
    assert "unkept" not in report and "failure" not in report
    rows = json.loads(report["history"])["quality"]
    assert [len(row["cas"]) for row in rows] == [1, 2, 3]
    *_, quality = asyncio.run(start(plan("lgm_vae")).test_row(config))
    assert set(quality) == {"cas", "nearest_distance"}
    assert quality["nearest_distance"] != rows[-1]["nearest_distance"]
    with safe_open(config["generated"]["file"], "pt") as file:
        assert file.metadata()["label"] == "default"
        assert {f"task_{t:02d}.x" for t in range(3)} < set(file.keys())


def test_samples_of_a_walk_that_was_killed_are_those_of_an_unbroken_one(
    start, tmp_path, new_process
):
    walk(start(plan("lgm_vae")), generating(tmp_path / "whole"))
    config = generating(tmp_path / "killed")
    learn(start(plan("lgm_vae")), config)
    new_process()
    walk(start(plan("lgm_vae")), config)
    whole, killed = (
        load_file(tmp_path / name / "generated" / "5.safetensors") for name in ("whole", "killed")
    )
    torch.testing.assert_close(killed, whole, **EXACTLY)


def test_samples_that_cannot_be_written_cost_one_line_and_nothing_else(start, tmp_path):
    config = generating(tmp_path)
    (tmp_path / "generated").touch()
    report = walk(start(plan("lgm_vae")), config)
    assert report["unkept"].startswith(f"cannot write {config['generated']['file']}")
    assert not {"failure", "unsaved"} & set(report) and report["tasks_learned"] == 3
    (expected,) = alone(tmp_path / "other", start, generating(tmp_path / "other"))
    assert of_the_trial({k: v for k, v in report.items() if k != "unkept"}) == expected[-1]


# ---- what a search may see (invariant 3) ---------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_search_trial_never_reads_test_data(method, start, monkeypatch, tmp_path):
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
    stream_of.cache_clear(), loaded.cache_clear()
    actor = start(own)
    asyncio.run(actor.measure(quick(method), 1))
    reports = [learn(actor, config_of(tmp_path, own=own)) for _ in range(3)]
    stream_of.cache_clear(), loaded.cache_clear()
    assert reports[-1]["done"] and "failure" not in reports[-1]
    assert parts[0] == "test" and set(parts[1:]) == {"train"}


# ---- a measurement, and the process --------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 4])
def test_an_engine_measures_what_a_lane_costs(width, start, tmp_path, monkeypatch):
    expected, actor = alone(tmp_path, start, config_of(tmp_path)), start()
    widths = failing_packs(monkeypatch, lambda seats: False, None)
    cost = asyncio.run(actor.measure(quick(), width))
    assert cost.width == width and cost.seconds > 0 and cost.bytes >= 0 and cost.free > 0
    assert set(widths) == {width}
    assert not actor.trials and not list(tmp_path.glob("*.safetensors"))
    assert [of_the_trial(learn(actor, config_of(tmp_path)))] == [expected[0][0]]


def test_a_measurement_of_what_cannot_be_raises_its_reason(start, tmp_path):
    actor = start()
    with pytest.raises(ValueError, match="no hyperparameter 'lrr'"):
        asyncio.run(actor.measure({"lrr": 1}, 1))
    assert learn(actor, config_of(tmp_path))["tasks_learned"] == 1


def test_an_engine_has_its_threads_whoever_starts_it(start):
    async def threads(actor):
        return await actor._order(lambda answer: answer.set_result(torch.get_num_threads()))

    assert asyncio.run(threads(start(threads=2))) == 2
    assert torch.get_num_threads() == 1


def test_an_engine_without_its_data_does_not_start(start):
    with pytest.raises(ValueError, match="unknown benchmark 'none'"):
        start(plan(benchmark="none"))


def test_a_gpu_that_torch_does_not_find_is_said_in_one_line(start, monkeypatch):
    monkeypatch.setattr(engine.ray, "get_gpu_ids", lambda: [0])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="PyTorch finds none: install a CUDA build") as error:
        start()
    assert "\n" not in str(error.value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert engine.on_device(plan()) == plan(device="cuda")


def test_where_there_is_no_glibc_memory_is_left_alone(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    engine.keep_freed_memory()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    engine.keep_freed_memory()


def test_who_quits_answers_what_is_under_way(start, tmp_path):
    actor = start()

    async def quit_inside_a_task():
        learning = asyncio.ensure_future(actor.learn(config_of(tmp_path, 1, quick(steps=100_000))))
        while not actor.seats:
            await asyncio.sleep(0.01)
        await actor.quit()
        return await learning

    assert asyncio.run(quit_inside_a_task())["failure"] == "the study ended"
    assert not actor.seats
    assert learn(actor, config_of(tmp_path, 2))["tasks_learned"] == 1
