"""Many trials at once in one engine: each has the numbers of one alone."""

import asyncio
import threading

import pytest
import torch

from tests.trainables.ray.test_engine import alone, config_of, failing_packs, learn, of_the_trial
from tests.trainables.ray.test_trial import METHODS, plan, quick
from trainables import sequential


async def together(actor, *calls):
    """The answers to calls that the training thread finds all at once."""
    held = threading.Event()
    actor.orders.put(held.wait)
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0)
    held.set()
    return await asyncio.wait_for(asyncio.gather(*tasks), 60)


def learn_together(actor, configs):
    return asyncio.run(together(actor, *map(actor.learn, configs)))


@pytest.mark.parametrize("method", METHODS)
def test_trials_at_once_are_packed_and_have_the_numbers_of_one_alone(method, start, tmp_path):
    own = plan(method)
    rate = next(name for name in quick(method) if name.endswith("lr"))
    configs = [
        config_of(tmp_path, k, quick(method, **{rate: 1e-3 * (k + 1)}), own) for k in range(4)
    ]
    expected, actor = alone(tmp_path, lambda: start(own), *configs), start(own)
    for task in range(3):
        reports = learn_together(actor, configs)
        assert [report["lanes"] for report in reports] == [4] * 4
        assert [of_the_trial(report) for report in reports] == [e[task] for e in expected]


def test_trials_come_and_go_and_have_the_numbers_of_one_alone(start, tmp_path):
    """Unlike in steps, in tasks that they have learned, in method and in shape."""
    hypers = [{"steps": steps, "beta1": 0.1 * k} for k, steps in enumerate((3, 70, 33, 0, 41, 32))]
    configs = [config_of(tmp_path, k, quick(**hyper)) for k, hyper in enumerate(hypers)]
    configs.append(config_of(tmp_path, 6, quick(hidden=8)))
    configs.append(config_of(tmp_path, 7, own=plan("joint")))
    expected, actor = [reports[-1] for reports in alone(tmp_path, start, *configs)], start()
    learn(actor, configs[1])
    found = asyncio.run(together(actor, *map(actor.walk, configs)))
    assert [of_the_trial(report) for report in found] == expected
    assert max(report["lanes"] for report in found) > 1
    assert not actor.trials and not actor.seats


def test_a_trial_that_leaves_is_forgotten_while_others_go_on(start, tmp_path):
    configs = [config_of(tmp_path, k, quick(lr=1e-3 * (k + 1))) for k in range(4)]
    expected, actor = alone(tmp_path, start, *configs), start()
    learn_together(actor, configs)
    asyncio.run(actor.leave(2))  # between two tasks, as Tune stops trials
    assert actor.trials.keys() == {0, 1, 3}

    async def one_leaves_inside_a_task():
        stopped = asyncio.ensure_future(actor.learn(configs[1]))
        others = [actor.learn(configs[0]), actor.learn(configs[3])]
        answers = await together(actor, *others, actor.leave(1), actor.leave(99))
        stopped.cancel()
        return answers[:2]

    reports = asyncio.run(one_leaves_inside_a_task())
    assert [of_the_trial(r) for r in reports] == [expected[0][1], expected[3][1]]
    assert actor.trials.keys() == {0, 3} and not actor.seats
    assert of_the_trial(learn(actor, configs[1])) == expected[1][0]  # from its file
    assert of_the_trial(learn(actor, configs[1])) == expected[1][1]


def test_calls_that_nobody_waits_for_any_more_do_no_harm(start, tmp_path):
    config, other = config_of(tmp_path), config_of(tmp_path, 6, quick(lr=0.002))
    (expected,), actor = alone(tmp_path, start, other), start()

    async def cancelled_before_its_turn_and_inside_a_task():
        held = threading.Event()
        actor.orders.put(held.wait)
        calls = [asyncio.ensure_future(call) for call in (actor.learn(config), actor.learn(other))]
        leaving = asyncio.ensure_future(actor.leave(99))
        await asyncio.sleep(0)
        calls[0].cancel()
        leaving.cancel()
        held.set()
        return await asyncio.wait_for(calls[1], 60)

    assert of_the_trial(asyncio.run(cancelled_before_its_turn_and_inside_a_task())) == expected[0]
    assert of_the_trial(learn(actor, other)) == expected[1]  # the engine lives on


def test_a_call_that_comes_twice_is_learned_once(start, tmp_path):
    """Ray repeats calls whose answer it has not heard, of processes that live on too."""
    config, other = config_of(tmp_path), config_of(tmp_path, 6, quick(lr=0.002))
    (expected, beside), actor = alone(tmp_path, start, config, other), start()
    first, again, third = learn_together(actor, [config, config, other])
    assert of_the_trial(first) == of_the_trial(again) == expected[0]
    assert of_the_trial(third) == beside[0]
    assert of_the_trial(learn(actor, config)) == expected[1]


def test_a_method_that_cannot_be_fused_is_trained_in_packs_of_one(
    start, tmp_path, monkeypatch, new_process
):
    configs = [config_of(tmp_path, k) | {"seed": k} for k in range(3)]
    expected = alone(tmp_path, start, *configs)
    new_process()
    monkeypatch.setattr(sequential, "SERIAL", True, raising=False)
    reports = learn_together(start(), configs)
    assert [report["lanes"] for report in reports] == [1, 1, 1]
    assert [of_the_trial(report) for report in reports] == [e[0] for e in expected]


def test_an_error_in_a_step_fails_the_trials_of_its_pack_only(start, tmp_path, monkeypatch):
    configs = [config_of(tmp_path, k) | {"seed": k} for k in range(5)]
    configs.append(config_of(tmp_path, 5, quick(hidden=8)) | {"seed": 1})
    expected, actor = alone(tmp_path, start, *configs), start()

    def fails(seats):
        return {1} & {seat.lane.seed for seat in seats} and len(seats) > 1

    with monkeypatch.context() as patch:
        failing_packs(patch, fails, ValueError("bad\nstep"))
        reports = learn_together(actor, configs)
    failed = {"failure": "ValueError: bad step", "tasks_learned": 0, "done": True}
    assert all(failed.items() <= report.items() for report in reports[:4])
    assert [of_the_trial(report) for report in reports[4:]] == [e[0] for e in expected[4:]]
    assert actor.trials.keys() == {4, 5} and not actor.seats
    assert of_the_trial(learn(actor, configs[1])) == expected[1][0]  # the engine lives on
    assert of_the_trial(learn(actor, configs[4])) == expected[4][1]


def test_packs_that_do_not_fit_into_memory_are_narrowed_and_say_so(
    start, tmp_path, monkeypatch, new_process
):
    configs = [config_of(tmp_path, k) | {"seed": k} for k in range(5)]
    expected = alone(tmp_path, start, *configs)
    new_process()
    full = torch.OutOfMemoryError("CUDA out of memory.")
    widths = failing_packs(monkeypatch, lambda seats: len(seats) > 2, full)
    actor, said = start(), "out of memory: packs are at most 2 lanes wide from now on"
    for task in range(3):
        reports = learn_together(actor, configs)
        assert [report["narrowed"] for report in reports] == [said] * 5
        assert [report["lanes"] for report in reports] == [2, 2, 2, 2, 1]
        assert [of_the_trial(report) for report in reports] == [e[task] for e in expected]
    assert widths == [2, 2, 1] * 3


def test_one_trial_that_does_not_fit_into_memory_fails(start, tmp_path, monkeypatch, new_process):
    full = torch.OutOfMemoryError("CUDA out of memory.")
    failing_packs(monkeypatch, lambda seats: True, full)
    report = learn(start(), config_of(tmp_path))
    assert report["failure"] == "OutOfMemoryError: CUDA out of memory." and report["done"]
