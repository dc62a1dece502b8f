"""The searcher: what the journal holds after anything that a trial, Tune or a kill can do."""

import logging
import random

import optuna
import pytest
import ray
from optuna.samplers import TPESampler
from optuna.trial import TrialState
from ray import tune
from ray.tune.search import Searcher

from trainables.ray import searcher as module
from trainables.ray.scheduler import make_scheduler
from trainables.ray.searcher import SAMPLERS, STARTUP, StudySearcher, make_sampler, open_study

COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL
RUNNING = TrialState.RUNNING
NAMES = ["lr", "steps", "replay", "memory"]
TASKS = 3


def space(trial):
    config = {
        "lr": trial.suggest_float("lr", 1e-4, 1.0, log=True),
        "steps": trial.suggest_int("steps", 1, 50),
        "replay": trial.suggest_categorical("replay", [True, False]),
        "width": 64,
    }
    if config["replay"]:
        config["memory"] = trial.suggest_float("memory", 0.0, 1.0)
    return config


DEFAULT = {"lr": 0.01, "steps": 10, "replay": False}


def open_searcher(directory, **options):
    given = {"directory": directory, "study_name": "study", "tasks": TASKS, "total": 30}
    return StudySearcher(space, "score", **given | options)


def score(hyper):
    return 1 - abs(hyper["lr"] - 0.1) - 0.2 * hyper["replay"]


def finish(searcher, name, value, tasks=TASKS):
    for task in range(1, tasks):
        searcher.on_trial_result(name, {"tasks_learned": task, "score": value})
    searcher.on_trial_complete(name, {"tasks_learned": tasks, "score": value})


def run(searcher, slots=1, timing=0):
    """Run a study to its end, ``slots`` trials at a time, which end in random order."""
    rng, running, hypers = random.Random(timing), {}, {}
    while True:
        while len(running) < slots:
            name = f"t{rng.random()}"
            suggestion = searcher.suggest(name)
            if suggestion is None or suggestion == Searcher.FINISHED:
                break
            running[name] = suggestion["hyper"]
            hypers[suggestion["number"]] = suggestion["hyper"]
        if not running:
            return hypers
        name = rng.choice(sorted(running))
        value = score(running.pop(name))
        finish(searcher, name, value, TASKS if value > 0.3 else 2)


def states(searcher):
    return [trial.state for trial in searcher.study.get_trials(deepcopy=False)]


def last(searcher):
    trial = searcher.study.get_trials(deepcopy=False)[-1]
    return trial.state, trial.value, trial.intermediate_values, trial.user_attrs.get("reason")


def test_a_trial_that_learned_all_tasks_is_complete(tmp_path):
    searcher = open_searcher(tmp_path, first=[DEFAULT], plan={"plan": {"method": "ewc"}})
    assert searcher.suggest("a") == {
        "number": 0,
        "hyper": DEFAULT | {"width": 64},
        "plan": {"method": "ewc"},
    }
    finish(searcher, "a", 0.5)
    assert last(searcher) == (COMPLETE, 0.5, {1: 0.5, 2: 0.5, 3: 0.5}, None)


def test_a_stopped_trial_is_pruned_with_the_result_that_stopped_it(tmp_path):
    searcher = open_searcher(tmp_path, rung="average")
    searcher.reasons = {0: "stopped after task 2: 0.600 < cutoff 0.700 (6 of 6)"}
    searcher.suggest("a")
    searcher.on_trial_result("a", {"tasks_learned": 1, "score": 1.0, "average": 0.9})
    searcher.on_trial_complete("a", {"tasks_learned": 2, "score": 0.5, "average": 0.6})
    assert last(searcher) == (PRUNED, 0.6, {1: 0.9, 2: 0.6}, searcher.reasons[0])
    assert searcher.history() == [(0, [0.9, 0.6])]


@pytest.mark.parametrize(
    ("result", "error", "reason"),
    [
        ({"tasks_learned": 3, "score": float("nan")}, False, "score = nan after task 3"),
        ({"tasks_learned": 3, "score": float("inf")}, False, "score = inf after task 3"),
        ({"tasks_learned": 3, "score": "good"}, False, "score = good after task 3"),
        ({"tasks_learned": 3}, False, "no 'score' in its last result"),
        ({}, False, "no 'score' in its last result"),
        (None, False, "no 'score' in its last result"),
        (None, True, "raised an error"),
        ({"tasks_learned": 1, "score": 0.5, "failure": "loss is nan"}, False, "loss is nan"),
    ],
)
def test_whatever_else_happens_is_a_failure_with_a_reason(tmp_path, result, error, reason):
    searcher = open_searcher(tmp_path)
    searcher.suggest("a")
    searcher.on_trial_complete("a", result, error)
    searcher.on_trial_complete("a", result, error)  # Tune may say so twice
    searcher.on_trial_result("stranger", {"tasks_learned": 1, "score": 0.5})
    state, value, _, given = last(searcher)
    assert (state, value, given) == (FAIL, None, reason)


def test_a_journal_that_cannot_be_written_to_does_not_raise(tmp_path, monkeypatch, caplog):
    searcher = open_searcher(tmp_path)
    searcher.suggest("a")
    monkeypatch.setattr(searcher.study, "tell", lambda *_: 1 / 0)
    finish(searcher, "a", 0.5)
    assert "trial 0: not told" in caplog.text


def test_the_total_is_exact_and_can_be_extended(tmp_path):
    run(open_searcher(tmp_path, total=5), slots=3)
    searcher = open_searcher(tmp_path, total=5)
    assert searcher.suggest("a") == Searcher.FINISHED
    assert sorted(run(open_searcher(tmp_path, total=7), slots=3)) == [5, 6]
    assert len(states(open_searcher(tmp_path, total=7))) == 7


def test_max_concurrency_is_kept_without_tunes_limiter(tmp_path):
    searcher = open_searcher(tmp_path)
    assert searcher.set_max_concurrency(2)
    assert searcher.suggest("a") and searcher.suggest("b") and searcher.suggest("c") is None
    searcher.on_trial_complete("a", error=True)
    assert searcher.suggest("c")["number"] == 2


@pytest.mark.parametrize(
    ("sampler", "batch"), [*((sampler, None) for sampler in SAMPLERS), ("tpe", 4), ("nsga2", 4)]
)
def test_a_killed_study_goes_on_as_if_nothing_had_happened(tmp_path, sampler, batch):
    total = STARTUP + (3 if sampler == "gp" else 8)  # a second for each suggestion
    options = {"sampler": sampler, "seed": 5, "total": total, "batch": batch, "first": [DEFAULT]}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = run(open_searcher(tmp_path / "a", **options))

    parts, killed = {}, open_searcher(tmp_path / "b", **options)
    for number in range(STARTUP + 2):
        suggestion = killed.suggest(f"t{number}")
        parts[suggestion["number"]] = suggestion["hyper"]
        value = score(suggestion["hyper"])
        if number < STARTUP + 1:
            finish(killed, f"t{number}", value, TASKS if value > 0.3 else 2)
    again = run(open_searcher(tmp_path / "b", **options))
    assert min(again) == STARTUP + 1 and again[STARTUP + 1] == parts[STARTUP + 1]
    assert parts | again == whole
    assert RUNNING not in states(open_searcher(tmp_path / "b", **options))


def test_a_trial_killed_while_it_was_drawn_is_completed(tmp_path):
    whole, half = tmp_path / "whole", tmp_path / "half"
    whole.mkdir(), half.mkdir()
    complete = open_searcher(whole, sampler="tpe").suggest("a")["hyper"]
    searcher = open_searcher(half, sampler="tpe")
    searcher.study.sampler = make_sampler("tpe", 0, 0, NAMES)
    searcher.study.ask().suggest_float("lr", 1e-4, 1.0, log=True)
    assert open_searcher(half, sampler="tpe").suggest("a")["hyper"] == complete


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_startup_is_a_matter_of_the_seed_alone(tmp_path, sampler):
    def startup(folder, seed, **options):
        (tmp_path / folder).mkdir()
        study = {"sampler": sampler, "seed": seed, "total": STARTUP, "first": [DEFAULT]}
        return run(open_searcher(tmp_path / folder, **study), **options)

    alone = startup("a", 5)
    assert alone == startup("b", 5, slots=7, timing=1) == startup("c", 5, slots=3, timing=2)
    assert alone != startup("d", 6)
    assert alone[0] == DEFAULT | {"width": 64}


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_in_batches_a_study_is_the_same_twice(tmp_path, sampler):
    def study(folder, **options):
        (tmp_path / folder).mkdir()
        return run(open_searcher(tmp_path / folder, total=24, sampler=sampler, batch=8), **options)

    first = study("a", slots=8, timing=1)
    assert first == study("b", slots=8, timing=2) == study("c", slots=3, timing=3)


def test_a_batch_waits_for_the_one_before(tmp_path):
    searcher = open_searcher(tmp_path, batch=3)
    names = [name for name in "abcde" if searcher.suggest(name)]
    assert names == ["a", "b", "c"] and len(states(searcher)) == 3
    finish(searcher, "c", 0.5)
    finish(searcher, "a", 0.5)
    resumed = open_searcher(tmp_path, batch=3)  # what has ended is not run again
    assert resumed.suggest("f")["number"] == 1 and resumed.suggest("g") is None
    finish(resumed, "f", 0.5)
    assert resumed.suggest("g")["number"] == 3


@pytest.mark.parametrize("asked", [1, 2])
def test_a_batch_that_was_being_asked_for_is_completed(tmp_path, asked):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = run(open_searcher(tmp_path / "a", batch=3, total=6))
    open_searcher(tmp_path / "b", batch=asked, total=asked).suggest("a")
    assert run(open_searcher(tmp_path / "b", batch=3, total=6)) == whole


def test_flags_of_tpe():
    sampler = make_sampler("tpe", 0, STARTUP, NAMES)
    assert isinstance(sampler, TPESampler)
    assert sampler._multivariate and sampler._group and not sampler._constant_liar
    assert sampler._n_startup_trials == 0  # ours is counted by number


def test_scrambled_points_reach_the_whole_range():
    study = optuna.create_study()
    values = []
    for number in range(64):
        study.sampler = make_sampler("qmc", 3, number, NAMES)
        values.append(space(study.ask()))
    assert sum(v["replay"] for v in values) == 32
    assert len({v["steps"] for v in values}) > 40  # of 50
    assert min(v["lr"] for v in values) < 2e-4 and max(v["lr"] for v in values) > 0.5


def test_bad_input_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="unknown sampler 'tpee': did you mean 'tpe'"):
        open_searcher(tmp_path, sampler="tpee")
    with pytest.raises(ValueError, match="lr = 7 is out of range"):
        open_searcher(tmp_path, first=[DEFAULT | {"lr": 7}])
    with pytest.raises(ValueError, match=r"memory = 0\.5 is inactive"):
        open_searcher(tmp_path, first=[DEFAULT | {"memory": 0.5}])
    assert not list(tmp_path.iterdir())


def test_a_journal_with_another_study_is_refused(tmp_path):
    open_searcher(tmp_path)
    with pytest.raises(ValueError, match="holds the study 'study', not 'other'"):
        open_searcher(tmp_path, study_name="other")


def test_an_entry_cut_short_is_removed_and_anything_worse_refused(tmp_path, caplog):
    finish(searcher := open_searcher(tmp_path), searcher.suggest("a") and "a", 0.5)
    journal = tmp_path / "study.journal"
    with journal.open("ab") as file:
        file.write(b'{"op_code":4,"worker_i')
    with caplog.at_level(logging.WARNING):
        resumed = open_searcher(tmp_path)
    assert "removed an entry cut short" in caplog.text
    assert resumed.suggest("b")["number"] == 1
    assert states(open_searcher(tmp_path)) == [COMPLETE, RUNNING]

    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:3], b"garbage\n", *lines[3:]]))
    with pytest.raises(ValueError, match=r"study\.journal is not a readable Optuna journal"):
        open_searcher(tmp_path)


def test_a_lock_left_by_a_killed_process_is_broken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "STALE_LOCK_SECONDS", 3)
    (tmp_path / "study.journal.lock").touch()
    assert open_searcher(".").suggest("a")["number"] == 0


@pytest.fixture(scope="module")
def cluster():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_worker_niceness", "0")  # else a busy machine starves them: 180 s for 20
        patch.setenv("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
        patch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
        patch.setenv("TUNE_GLOBAL_CHECKPOINT_S", "1")
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


def walk():
    """A trainable that is pickled by value, so that its process imports nothing of ours."""

    class Walk(tune.Trainable):
        """Learns a task a step; the odd ones fail in every way there is."""

        def setup(self, config):
            self.reset_config(config)

        def reset_config(self, new_config):
            self.number, self.tasks, self.hyper = new_config["number"], 0, new_config["hyper"]
            return True

        def step(self):
            self.tasks += 1
            report = {"tasks_learned": self.tasks, "done": self.tasks == TASKS}
            if self.number == 3:
                raise RuntimeError("broken")
            if self.number == 4:
                return report | {"score": float("nan")}
            if self.number == 5:
                return report
            return report | {"score": score(self.hyper)}

    return Walk


def fit(directory, total):
    searcher = open_searcher(directory, total=total, first=[DEFAULT], seed=1)
    scheduler = make_scheduler("asha", metric="score", tasks=TASKS, history=searcher.history())
    searcher.reasons = scheduler.reasons
    tune.Tuner(
        walk(),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,
            max_concurrent_trials=2,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            storage_path=str(directory / "tune"),
            name="study",
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    ).fit()
    return searcher, scheduler


def test_under_tune(cluster, tmp_path):
    searcher, scheduler = fit(tmp_path, total=16)
    trials = searcher.study.get_trials(deepcopy=False)
    assert len(trials) == 16
    assert [t.number for t in trials if t.state == FAIL] == [3, 4, 5]
    assert trials[0].state == COMPLETE and trials[0].params == DEFAULT
    pruned = [t for t in trials if t.state == PRUNED]
    assert {t.number: t.user_attrs["reason"] for t in pruned} == {
        n: reason for n, reason in scheduler.reasons.items() if n != 4
    }
    assert pruned and all(list(t.intermediate_values) == [1, 2] for t in pruned)

    more, _ = fit(tmp_path, total=18)
    assert states(more)[:16] == [t.state for t in trials] and len(states(more)) == 18
    assert open_study(tmp_path / "study.journal", "study").best_trial.state == COMPLETE
