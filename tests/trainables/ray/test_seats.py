"""Seats of engines as Tune's means to run trials."""

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from ray.air.execution import ResourceRequest
from ray.tune.execution import tune_controller

from tests.test_whole_studies import ROOT, environment_of
from trainables.ray import seats
from trainables.ray.engines import Engines
from trainables.ray.seats import DEFAULT_MANAGER, Seats, TrialHandle, seated

REQUEST = ResourceRequest([{"CPU": 1}])


class Remote:
    """Stands for a method of a Ray actor: remembers its calls."""

    def __init__(self, name, calls):
        self.name, self.calls = name, calls

    def options(self, name):
        return Remote(f"{self.name} as {name}", self.calls)

    def remote(self, *arguments):
        self.calls.append((self.name, *arguments))
        return f"answer to {self.name}"


def engine() -> Any:
    calls = []
    methods = {name: Remote(name, calls) for name in ("learn", "leave", "ready")}
    return SimpleNamespace(calls=calls, **methods)


@pytest.fixture
def three() -> Seats:
    """Three engines of two lanes each, asked for nine seats."""
    manager = Seats(Engines([engine() for _ in range(3)], 2))
    for _ in range(9):
        manager.request_resources(REQUEST)
    return manager


def take(manager: Seats) -> Any:
    assert manager.has_resources_ready(REQUEST)
    return manager.acquire_resources(REQUEST)


def test_a_trial_gets_a_seat_in_the_engine_that_has_most_free(three):
    taken = [take(three) for _ in range(6)]
    assert [seat.index for seat in taken] == [0, 1, 2, 0, 1, 2]
    assert all(seat.engine is three._engines.actors[seat.index] for seat in taken)
    for seat in (taken[1], taken[4], taken[5]):  # both of engine 1, one of engine 2
        three.free_resources(seat)
    assert [take(three).index for _ in range(3)] == [1, 1, 2]


def test_nobody_is_seated_when_all_seats_are_taken(three):
    taken = [take(three) for _ in range(6)]
    assert not three.has_resources_ready(REQUEST)
    assert three.acquire_resources(REQUEST) is None
    three.free_resources(taken[3])
    assert take(three).index == taken[3].index
    assert three.acquire_resources(REQUEST) is None


def test_only_what_was_requested_is_given():
    manager, other = Seats(Engines([engine()], 9)), ResourceRequest([{"CPU": 2}])
    assert not manager.has_resources_ready(REQUEST)
    assert manager.acquire_resources(REQUEST) is None
    for _ in range(3):
        manager.request_resources(REQUEST)
    manager.cancel_resource_request(REQUEST)
    assert not manager.has_resources_ready(other)
    assert take(manager) and take(manager)
    assert manager.acquire_resources(REQUEST) is None


def test_a_cleared_manager_has_all_seats_and_no_requests(three):
    for _ in range(6):
        take(three)
    three.clear()
    assert not three.has_resources_ready(REQUEST)
    for _ in range(6):
        three.request_resources(REQUEST)
    assert [take(three).index for _ in range(6)] == [0, 1, 2, 0, 1, 2]


# ---- what Tune takes for a trial's actor ---------------------------------------------------------


def test_a_trials_calls_go_to_its_engine(three, monkeypatch):
    monkeypatch.setattr(seats.ray, "put", lambda value: ("put", value))
    seat = take(three)
    (actor_class,) = seat.annotate_remote_entities([object])
    config = {"number": 7, "hyper": {}}
    handle: Any = actor_class.remote(config=config, logger_creator=None)
    assert isinstance(handle, TrialHandle) and seat.engine.calls == []
    assert handle.__ray_ready__.remote() == "answer to ready"
    assert handle.train.remote() == "answer to learn as trial 7"
    assert handle.get_auto_filled_metrics.remote(now=1) == ("put", {})
    assert handle.stop.remote() == ("put", {})  # nobody waits for it
    assert seat.engine.calls == [("ready",), ("learn as trial 7", config), ("leave", 7)]


def test_tune_seats_its_trials_until_the_search_ends():
    theirs = getattr(tune_controller, DEFAULT_MANAGER)
    engines = Engines([engine()], 3)
    with seated(engines):
        manager = getattr(tune_controller, DEFAULT_MANAGER)()
        assert isinstance(manager, Seats) and manager._engines is engines
    assert getattr(tune_controller, DEFAULT_MANAGER) is theirs
    with pytest.raises(KeyError), seated(engines):
        raise KeyError
    assert getattr(tune_controller, DEFAULT_MANAGER) is theirs


# ---- with Tune itself ----------------------------------------------------------------------------

SEARCH = """
import asyncio, json, logging, sys, time
from collections import Counter

from trainables.ray import environment
environment.prepare(None)
import ray
from ray import tune
from ray.tune.execution import tune_controller
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from trainables.ray.engines import Engines
from trainables.ray.seats import seated


@ray.remote(num_cpus=0, max_concurrency=100)
class Engine:
    async def begin(self):
        self.tasks, self.inside, self.most, self.left = Counter(), set(), 0, []

    async def ready(self):
        pass

    async def learn(self, config):
        self.inside.add(config["number"])
        self.most = max(self.most, len(self.inside))
        await asyncio.sleep(0.02)
        self.tasks[config["number"]] += 1
        tasks = self.tasks[config["number"]]
        return {"tasks_learned": tasks, "done": tasks == 3}

    async def leave(self, number):
        self.inside.discard(number)
        self.left.append(number)

    async def seen(self):
        return {"tasks": self.tasks, "most": self.most, "left": self.left}


class StopsThree(FIFOScheduler):
    def on_trial_result(self, controller, trial, result):
        stop = trial.config["number"] == 3
        return TrialScheduler.STOP if stop else TrialScheduler.CONTINUE


class Full(tune.Callback):
    def on_trial_result(self, iteration, trials, trial, result, **info):
        if result["tasks_learned"] == 2:
            raise OSError("disk full")


def search(*callbacks):
    ray.get([engine.begin.remote() for engine in engines])
    with seated(Engines(engines, 2)):
        try:
            found = tune.Tuner(
                type("method", (tune.Trainable,), {}),
                param_space={"number": tune.grid_search(list(range(7)))},
                tune_config=tune.TuneConfig(scheduler=StopsThree()),
                run_config=tune.RunConfig(
                    storage_path=sys.argv[1], verbose=0, callbacks=list(callbacks),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                ),
            ).fit()
            failed = found.num_errors
        except tune.TuneError as error:
            failed = repr(error.__context__)
    for _ in range(100):  # nobody waits for a seat to be left
        seen = ray.get([engine.seen.remote() for engine in engines])
        if all(len(one["left"]) == len(one["tasks"]) for one in seen):
            break
        time.sleep(0.1)
    return {"failed": failed, "engines": seen, "theirs": theirs is manager()}


def manager():
    return tune_controller.PlacementGroupResourceManager


theirs = manager()
logging.getLogger("ray.tune").setLevel(logging.ERROR)
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
engines = [Engine.remote() for _ in range(2)]
print(json.dumps([search(), search(Full())]))
ray.shutdown()
"""


def test_tune_runs_trials_in_the_seats_of_engines(tmp_path):
    """Two engines of two lanes, seven trials of three tasks, one of them stopped after the first;
    then the same with a callback that raises."""
    done = subprocess.run(
        [sys.executable, "-c", SEARCH, str(tmp_path / "tune")],
        cwd=ROOT,
        env=environment_of(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    whole, broken = json.loads(done.stdout.splitlines()[-1])
    assert whole["failed"] == 0
    tasks = [seen["tasks"] for seen in whole["engines"]]
    assert tasks[0] | tasks[1] == {str(n): 1 if n == 3 else 3 for n in range(7)}
    assert not tasks[0].keys() & tasks[1].keys()
    for seen in whole["engines"]:
        assert seen["most"] == 2
        assert sorted(map(str, seen["left"])) == sorted(seen["tasks"])  # each of them, once
    assert whole["theirs"] and broken["theirs"]
    assert broken["failed"] == "OSError('disk full')"
