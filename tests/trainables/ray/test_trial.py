"""A trial: the same numbers however often it is interrupted, and what it says about itself."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import search_spaces
from tests.conftest import EXACTLY
from trainables import benchmarks, sequential
from trainables.engine import checkpoint, metrics
from trainables.engine.checkpoint import CheckpointError
from trainables.engine.noise import trial_seed
from trainables.ray.trial import Plan, Trial, batch_of, block, engine_of, loaded, stream_of

METHODS = search_spaces.names()


def plan(method="sequential", **options) -> Plan:
    return Plan(
        **{"method": method, "benchmark": "gaussian", "scenario": "class", "seed": 3} | options
    )


def quick(method="sequential", **options) -> dict:
    """The default configuration with few steps."""
    default = search_spaces.load(method).DEFAULT
    steps = {name: 7 for name in default if name.endswith("steps") and name != "critic_steps"}
    return default | steps | options


def learn_next(*trials: Trial) -> list[str | None]:
    """Let trials of one engine learn their next tasks side by side; why they diverged, or None."""
    engine = trials[0].engine
    seats = [trial.begin_next() for trial in trials]
    waiting = dict(zip(seats, trials, strict=True))
    failures = {}
    while waiting:
        for seat, learned in engine.advance():
            failures[seat] = waiting.pop(seat).end(learned)
    return [failures[seat] for seat in seats]


def walked(trial: Trial) -> Trial:
    while not trial.finished:
        assert learn_next(trial) == [None]
    return trial


@pytest.mark.parametrize("method", METHODS)
def test_a_trial_restored_after_every_task_has_the_numbers_of_an_unbroken_one(method, tmp_path):
    config, file = quick(method), tmp_path / "trial.safetensors"
    whole = walked(Trial(plan(method), config))
    part = Trial(plan(method), config)
    while not part.finished:
        learn_next(part)
        part.save(file)
        learned, part = part, Trial(plan(method), dict(reversed(config.items())))
        part.restore(file)
        assert part.seconds == learned.seconds > 0
        assert part.report() == learned.report()
    assert part.rows == whole.rows and part.losses == whole.losses and part.seed == whole.seed
    torch.testing.assert_close(part.lane.state, whole.lane.state, **EXACTLY)


@pytest.mark.parametrize("method", METHODS)
def test_a_report_is_flat_scalars_by_the_documented_names(method):
    trial = Trial(plan(method), quick(method))
    about = {"tasks_learned", "seed", "seconds", "memory_bytes", "lanes", "history"}
    assert set(trial.report()) == about
    for tasks in (1, 2, 3):
        learn_next(trial)
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
        assert json.loads(report["history"]) == {
            "accuracy": trial.rows, "quality": [{}] * tasks, "losses": trial.losses
        }  # fmt: skip
    assert {"joint_accuracy", "average_accuracy", "forgetting", "retained_accuracy"} <= set(report)
    # One validation part is as large as another here: joint accuracy is the mean of the last row.
    assert report["joint_accuracy"] == pytest.approx(np.mean(trial.rows[-1]))


@pytest.mark.parametrize("method", METHODS)
def test_a_measured_trial_has_the_numbers_of_another_and_measures(method, tmp_path):
    config, file = quick(method), tmp_path / "trial.safetensors"
    other, trial = Trial(plan(method), config), Trial(plan(method, quality=True), config)
    assert trial.engine is other.engine and trial.stream is other.stream
    generates, reconstructs = trial.engine.method.sample, trial.engine.method.reconstruct
    names = {"cas", "nearest_distance"} if generates else set()
    names |= {"reconstruction_error", "explained_variance"} if reconstructs else set()
    names |= {"task_accuracy", "zero_shot_accuracy", "untrained_accuracy"}
    one_phase = len(trial.engine.method.schedule(trial.lane.hyper, 0)) == 1
    if one_phase and trial.engine.method.data == "task":
        names.add("learning_curve_area")
    while not trial.finished:
        learn_next(other), learn_next(trial)
        assert other.quality == [{}] * other.tasks_learned
        tasks, last = trial.tasks_learned, trial.quality[-1]
        assert set(last) == names and all(len(row) == tasks for row in last.values())
        trial.save(file)
        learned, trial = trial, Trial(plan(method, quality=True), config)
        trial.restore(file)
        assert trial.report() == learned.report()
        assert json.loads(trial.report()["history"])["quality"] == learned.quality
        own = {"cas": np.mean(last["cas"])} if generates else {}  # tasks of one size
        if reconstructs:
            own["explained_variance"] = np.mean(last["explained_variance"])
        apart = ("seconds", "history", "lanes")
        assert {k: v for k, v in trial.report().items() if k not in apart} == pytest.approx(
            {k: v for k, v in other.report().items() if k not in apart} | own
        )
    assert trial.rows == other.rows and trial.losses == other.losses
    torch.testing.assert_close(trial.lane.state, other.lane.state, **EXACTLY)


def test_what_is_measured_on_tasks_to_come(new_engines, monkeypatch):
    declared = replace(benchmarks.BENCHMARKS["gaussian"], attributes=lambda data_dir: torch.eye(6))
    monkeypatch.setitem(benchmarks.BENCHMARKS, "described", declared)
    asked = plan("joint", benchmark="described", attributes="classifier", quality=True)
    trial, by_hand = Trial(asked, quick("joint")), []
    while not trial.finished:
        by_hand.append(trial.told_the_task())
        learn_next(trial)
    found = trial.quality[-1]
    assert found["untrained_accuracy"] == by_hand[0]
    assert found["zero_shot_accuracy"] == [row[t] for t, row in enumerate(by_hand)]
    assert found["task_accuracy"] == trial.told_the_task()
    for t in range(3):
        among_all = trial.quality[t]["seen_accuracy"][t]
        assert trial.rows[t][0] >= 0 and 0 <= among_all <= 1
    # Of the last task nothing is to come: all compete, and what is seen is all.
    assert found["seen_accuracy"][2] == pytest.approx(np.mean(trial.rows[2]))
    assert [bool(np.isnan(u)) for u in found["unseen_accuracy"]] == [False, False, True]


def test_the_area_of_a_learning_curve_is_that_of_trials_of_so_many_steps():
    areas, shorter = [], []
    trial = Trial(plan(quality=True), quick(steps=14), seed=5)
    for _ in range(2):
        shorter = [Trial(plan(), quick(steps=b), seed=5) for b in range(11)]
        for one in shorter:
            one.lane = one.lane._replace(state=trial.lane.state)
            one.rows = list(trial.rows)
            learn_next(one)
        areas.append(np.mean([one.told_the_task()[trial.tasks_learned] for one in shorter]))
        learn_next(trial)
    assert trial.quality[-1]["learning_curve_area"] == pytest.approx(areas)
    assert len({one.told_the_task()[1] for one in shorter}) > 1


def test_a_checkpoint_from_before_quality_was_measured_is_gone_on_with(tmp_path, monkeypatch):
    trial = Trial(plan(), quick())
    learn_next(trial)
    with monkeypatch.context() as patch:
        write = checkpoint.save
        kept = lambda path, state, about: write(  # noqa: E731
            path, state, {k: v for k, v in about.items() if k != "quality"}
        )
        patch.setattr(checkpoint, "save", kept)
        trial.save(tmp_path / "x")
    again = Trial(plan(quality=True), quick())
    again.restore(tmp_path / "x")
    assert again.quality == [{}] and again.report() == trial.report()
    learn_next(again)
    assert "cas" not in again.quality[1] and "task_accuracy" not in again.quality[1]


def test_lanes_are_the_mean_width_of_a_trials_packs_over_its_tasks(tmp_path):
    trial, *others = (Trial(plan(), quick(), seed) for seed in range(4))
    assert trial.report()["lanes"] == 1
    for beside, width, mean in (([], 1, 1), (others, 4, 2), (others, 4, 3)):
        assert learn_next(trial, *beside) == [None] * (1 + len(beside))
        assert trial.widths[-1] == width
        assert trial.report()["lanes"] == mean  # 1, 5/2, 3
    trial.save(tmp_path / "x")
    again = Trial(plan(), quick(), 0)
    again.restore(tmp_path / "x")
    assert again.report()["lanes"] == 3


def test_memory_is_what_is_carried_and_for_joint_its_data_too():
    hidden, inputs, classes = 128, 8, 6
    weights = 4 * ((inputs + 1) * hidden + (hidden + 1) * classes)
    assert walked(Trial(plan(), quick())).memory_bytes() == weights
    joint = Trial(plan("joint"), quick("joint"))
    assert joint.memory_bytes() == weights
    for tasks in (1, 2, 3):
        learn_next(joint)
        assert joint.memory_bytes() == weights + tasks * 80 * (4 * inputs + 8)


def test_a_seed_is_a_function_of_study_seed_and_configuration():
    config = quick()
    seed = Trial(plan(), config).seed
    assert seed == trial_seed(3, config) == Trial(plan(), dict(reversed(config.items()))).seed
    assert Trial(plan(seed=4), config).seed != seed != Trial(plan(), quick(lr=0.002)).seed
    assert Trial(plan(), config, seed=11).seed == 11


def test_a_trial_that_diverges_has_losses_but_no_row():
    trial = Trial(plan(), quick(lr=float("inf")))
    (failure,) = learn_next(trial)
    assert failure == "cross_entropy became nan in task 0, phase train"
    assert trial.rows == [] and len(trial.losses) == 1 and not trial.finished
    assert trial.report()["tasks_learned"] == 0


def test_a_bad_configuration_is_refused():
    with pytest.raises(ValueError, match="no hyperparameter 'lrr': did you mean 'lr'"):
        Trial(plan(), quick(lrr=1.0))


def test_the_checkpoint_of_another_trial_is_refused(tmp_path):
    file = tmp_path / "x"
    trial = Trial(plan(), quick())
    learn_next(trial)
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


# ---- what the trials of a process share ----------------------------------------------------------


def test_trials_of_one_method_and_shape_share_an_engine_and_their_data():
    one, other = Trial(plan(), quick()), Trial(plan(), quick(lr=0.5))
    assert one.engine is other.engine
    assert one.engine is not Trial(plan(), quick(hidden=8)).engine
    assert one.engine is not Trial(plan("joint"), quick("joint")).engine
    assert batch_of(plan(), 1, "task") is batch_of(plan(), 1, "task")
    assert len(batch_of(plan(), 1, "seen").y) == 2 * len(batch_of(plan(), 1, "task").y)


def test_the_stream_and_its_test_data_are_those_of_the_plan():
    asked = plan(tasks=2, scenario="domain")
    test = benchmarks.load_test(asked.benchmark, **asked.benchmark_options())
    assert len(stream_of(asked).tasks) == len(test) == 2
    assert stream_of(asked).problem.classes == 3


def test_a_plan_may_be_of_a_part_of_the_stream():
    stream_of.cache_clear(), loaded.cache_clear()
    whole = stream_of(plan())
    last = stream_of(plan(begin=1))
    assert [task.classes for task in last.tasks] == [task.classes for task in whole.tasks[1:]]
    assert last.tasks[0].train.x.equal(whole.tasks[1].train.x)
    assert not last.learned(0).any() and last.seen(0).equal(whole.current(1))
    assert len(stream_of(plan(end=2)).tasks) == 2
    assert stream_of(plan("joint")) is whole  # one copy of the data for all methods
    assert last.tasks[0] is whole.tasks[1]


def test_the_engine_has_the_attributes_on_its_device(new_engines, monkeypatch):
    declared = replace(benchmarks.BENCHMARKS["gaussian"], attributes=lambda data_dir: torch.eye(6))
    monkeypatch.setitem(benchmarks.BENCHMARKS, "described", declared)
    asked = plan(benchmark="described", attributes="both", device="meta")
    assert stream_of(asked).problem.attributes.equal(torch.eye(6))
    problem = engine_of(asked, sequential.Shape()).problem
    assert (problem.attributes.device.type, problem.attributes.shape) == ("meta", (6, 6))
    assert problem.attributes_in == ("generator", "classifier")


@pytest.fixture
def new_engines():
    engine_of.cache_clear()
    yield
    engine_of.cache_clear()


@pytest.mark.parametrize(("serial", "widest"), [(True, 1), (False, 1024)])
def test_a_method_that_cannot_be_fused_has_an_engine_of_one_lane(
    serial, widest, new_engines, monkeypatch
):
    monkeypatch.setattr(sequential, "SERIAL", serial, raising=False)
    assert Trial(plan(), quick()).engine.widest == widest
