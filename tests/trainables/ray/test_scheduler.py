"""Early stopping, on values made by hand."""

import random
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import TrialScheduler

from trainables.ray.scheduler import PEERS, SCHEDULERS, make_scheduler

STOP, CONTINUE = TrialScheduler.STOP, TrialScheduler.CONTINUE
RULE = {"metric": "value", "tasks": 5, "control_share": 0.0}


def report(scheduler, number, task, value):
    trial = SimpleNamespace(config={"number": number}, trial_id=f"t{number}")
    return scheduler.on_trial_result(None, trial, {"tasks_learned": task, "value": value})


def test_a_trial_below_the_cutoff_of_its_rung_stops_and_says_why():
    scheduler = make_scheduler("asha", **RULE)
    for number, value in enumerate([0.1, 0.2, 0.3, 0.4, 0.5]):
        assert report(scheduler, number, 2, value) == CONTINUE  # too few peers to judge by
    assert report(scheduler, 5, 2, 0.3) == CONTINUE  # the median itself passes
    assert report(scheduler, 6, 2, 0.15) == STOP
    assert scheduler.reasons == {6: "stopped after task 2: 0.150 < cutoff 0.300 (6 of 7)"}


@pytest.mark.parametrize(
    ("name", "tasks", "rungs"),
    [
        ("asha", 5, [2, 4]),
        ("asha", 10, [4, 8]),
        ("asha", 2, []),
        ("median", 5, [2, 3, 4]),
        ("none", 5, []),
    ],
)
def test_rungs(name, tasks, rungs):
    scheduler = make_scheduler(name, **RULE | {"tasks": tasks})
    stopped = []
    for task in range(1, tasks + 1):
        for number in range(PEERS):
            report(scheduler, number, task, 1.0)
        if report(scheduler, 100 + task, task, 0.0) == STOP:
            stopped.append(task)
    assert stopped == rungs


def test_a_rung_keeps_one_in_reduction_factor():
    scheduler = make_scheduler("asha", **RULE, grace=3, reduction_factor=4)
    order = random.Random(0).sample(range(1000), 1000)
    kept = sum(report(scheduler, i, 3, value) == CONTINUE for i, value in enumerate(order))
    assert 220 < kept < 290


def test_controls_are_never_stopped_and_are_a_matter_of_seed_and_number():
    scheduler = make_scheduler("asha", **RULE | {"control_share": 0.2}, seed=3)
    for number in range(PEERS):
        report(scheduler, number, 2, 1.0)
    numbers = range(100, 300)
    spared = {n for n in numbers if report(scheduler, n, 2, 0.0 - n) == CONTINUE}
    assert spared == {n for n in numbers if scheduler.is_control(n)}
    assert 20 < len(spared) < 60
    again = make_scheduler("median", **RULE | {"control_share": 0.2}, seed=3)
    assert spared == {n for n in numbers if again.is_control(n)}


def test_history_fills_the_rungs_again():
    values = [(number, [0.9, number / 10, float("nan"), 0.5]) for number in range(6)]
    scheduler = make_scheduler("asha", **RULE, history=values)
    assert report(scheduler, 0, 2, 0.0) == CONTINUE  # was judged before it was resumed
    assert report(scheduler, 6, 2, 0.2) == STOP
    assert "(4 of 7)" in scheduler.reasons[6]


def test_nan_stops_and_counts_for_nobody():
    scheduler = make_scheduler("asha", **RULE)
    for number in range(PEERS):
        assert report(scheduler, number, 2, float("nan")) == STOP
    assert report(scheduler, 10, 2, 0.0) == CONTINUE
    assert scheduler.reasons[0] == "value = nan after task 2"


def test_a_result_without_the_metric_is_let_through():
    trial = SimpleNamespace(config={"number": 0})
    for result in ({"tasks_learned": 2}, {"value": 1.0}):
        assert make_scheduler("asha", **RULE).on_trial_result(None, trial, result) == CONTINUE


@pytest.mark.parametrize("name", ["asha", "hyperband", "median"])
def test_in_batches_the_order_of_arrival_has_no_say(name):
    values = {n: [random.Random(n).random() for _ in range(5)] for n in range(48)}

    def stops(order_seed):
        scheduler, rng = make_scheduler(name, **RULE, batch=8), random.Random(order_seed)
        for start in range(0, 48, 8):
            running = dict.fromkeys(range(start, start + 8), 0)  # tasks learned
            while running:
                number = rng.choice(sorted(running))
                running[number] += 1
                done = running[number] == 5
                if (
                    done
                    or report(
                        scheduler, number, running[number], values[number][running[number] - 1]
                    )
                    == STOP
                ):
                    del running[number]
        return scheduler.reasons

    assert stops(0) == stops(1) == stops(2)
    assert 5 < len(stops(0)) < 40 and min(stops(0)) >= 8


def test_hyperband_starts_some_trials_later_and_stops_some_never():
    scheduler = make_scheduler("hyperband", **RULE)
    ended = []
    for number in range(300):
        task = 1
        while task < 5 and report(scheduler, number, task, -float(number)) == CONTINUE:
            task += 1
        ended.append(task)
    assert {2, 4, 5} == set(ended) and all(ended.count(task) > 60 for task in (2, 4, 5))


def test_bad_names_and_numbers():
    with pytest.raises(ValueError, match="unknown scheduler 'ahsa': did you mean 'asha'"):
        make_scheduler("ahsa", **RULE)
    with pytest.raises(ValueError, match="got grace = 0"):
        make_scheduler("asha", **RULE, grace=0)
    with pytest.raises(ValueError, match="reduction_factor = 1"):
        make_scheduler("asha", **RULE, reduction_factor=1)
    assert SCHEDULERS == ("asha", "hyperband", "median", "none")
