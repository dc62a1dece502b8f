"""What a memory keeps, against selections from all examples so far at once."""

from itertools import pairwise

import pytest
import torch

from tests.conftest import EXACTLY, F64, generator
from trainables.engine import memory
from trainables.engine.method import Batch, Problem

PROBLEM = Problem((2, 3), 6, F64)
MASK = torch.zeros(6, dtype=torch.bool)


def task_of(y, first=0):
    """A task whose i-th example is filled with its number."""
    x = torch.arange(first, first + len(y), dtype=F64)[:, None, None].expand(-1, 2, 3)
    return Batch(x, torch.tensor(y), MASK, MASK, MASK.repeat(6, 1))


def stream(counts, seed):
    """Tasks of two classes each, with uniform keys; and all labels and keys in their order."""
    g, tasks, labels, keys = generator(seed), [], [], []
    for t, count in enumerate(counts):
        y = torch.randint(2 * t, 2 * t + 2, (count,), generator=g).tolist()
        key = torch.rand(count, generator=g, dtype=F64)
        tasks.append((task_of(y, len(labels)), key))
        labels, keys = labels + y, keys + key.tolist()
    return tasks, labels, keys


def after(tasks, places, policy):
    found = memory.empty(PROBLEM, places)
    for task, key in tasks:
        found, _ = memory.with_task(found, task, key, policy)
    return found


def numbers(found):
    """Which examples are stored."""
    x = found.x[: int(found.taken)]
    assert (x == x[:, :1]).all()  # whole examples
    return x[:, 0].long().tolist()


# ---- what is kept --------------------------------------------------------------------------------


@pytest.mark.parametrize("places", [1, 7, 20, 100])
def test_a_reservoir_is_the_smallest_keys_of_all(places):
    tasks, labels, keys = stream([9, 14, 30], 0)
    for t in range(1, 4):
        found = after(tasks[:t], places, "reservoir")
        count = sum(len(key) for _, key in tasks[:t])
        expected = sorted(range(count), key=keys.__getitem__)[:places]
        assert numbers(found) == expected
        assert found.y[: len(expected)].tolist() == [labels[i] for i in expected]
        assert found.key[: len(expected)].tolist() == [keys[i] for i in expected]
        assert found.taken == min(count, places)


def test_every_example_is_in_a_reservoir_with_the_same_chance():
    """Of 12 + 8 + 10 examples 6 are kept: 2000 times 1/5 each, early and late ones alike."""
    counts = torch.zeros(30)
    for seed in range(2000):
        tasks, _, _ = stream([12, 8, 10], seed)
        counts[numbers(after(tasks, 6, "reservoir"))] += 1
    assert counts.sum() == 12000
    assert ((counts - 400).abs() < 5 * (2000 * 0.2 * 0.8) ** 0.5).all()


@pytest.mark.parametrize("places", [1, 5, 6, 20, 31, 60, 100])
def test_classes_share_the_places_and_have_the_smallest_of_their_keys(places):
    tasks, labels, keys = stream([30, 40, 50], 1)
    for t in range(1, 4):
        found = numbers(after(tasks[:t], places, "balanced"))
        count = sum(len(key) for _, key in tasks[:t])
        assert len(found) == min(count, places)
        mine = [[i for i in range(count) if labels[i] == c] for c in range(2 * t)]
        kept = [[i for i in found if labels[i] == c] for c in range(2 * t)]
        largest = max(map(len, kept))
        for own, some in zip(mine, kept, strict=True):
            assert sorted(some) == sorted(sorted(own, key=keys.__getitem__)[: len(some)])
            assert len(some) >= largest - 1 or len(some) == len(own)


def test_a_small_class_leaves_its_places_to_others():
    found = memory.empty(PROBLEM, 10)
    task = task_of([0] * 20 + [1] * 2 + [2] * 20)
    found, _ = memory.with_task(found, task, torch.arange(42, dtype=F64), "balanced")
    assert found.y.bincount().tolist() == [4, 2, 4]


@pytest.mark.parametrize("policy", memory.POLICIES)
def test_a_smaller_memory_holds_a_part_of_a_larger_one(policy):
    tasks, _, _ = stream([30, 40, 50], 2)
    for t in range(1, 4):
        stored = [numbers(after(tasks[:t], places, policy)) for places in range(1, 125, 3)]
        for small, large in pairwise(stored):
            assert large[: len(small)] == small


@pytest.mark.parametrize("policy", memory.POLICIES)
def test_rows_say_where_what_is_kept_comes_from(policy):
    tasks, _, _ = stream([9, 40], 3)
    before = after(tasks[:1], 16, policy)
    task, key = tasks[1]
    found, rows = memory.with_task(before, task, key, policy)
    assert not ((rows >= 9) & (rows < 16)).any()  # places that were free
    both = torch.cat([before.x, task.x.flatten(1)])
    torch.testing.assert_close(found.x, both[rows], **EXACTLY)


def test_how_many_labels_before_are_the_same():
    y = torch.tensor([4, 1, 4, 4, 0, 1])
    assert memory.earlier(y).tolist() == [0, 0, 1, 2, 0, 1]


# ---- what is drawn -------------------------------------------------------------------------------


def test_taken_places_are_drawn_alike_and_free_ones_never():
    tasks, _, _ = stream([7], 4)
    found = after(tasks, 20, "balanced")
    chance = torch.rand(7000, generator=generator(0), dtype=F64)
    counts = memory.drawn(found, chance).bincount(minlength=20)
    assert not counts[7:].any()
    assert ((counts[:7] - 1000).abs() < 5 * (7000 / 7 * 6 / 7) ** 0.5).all()
    edge = torch.tensor([0.0, 1 - 2**-24])  # the largest number below 1 that is drawn in float32
    for taken in (1.0, 3.0, 500.0, 1023.0, 1e6):
        full = found._replace(taken=torch.tensor(taken))
        assert memory.drawn(full, edge).tolist() == [0, taken - 1]


def test_what_is_drawn_from_an_empty_memory_can_be_looked_up():
    found = memory.empty(PROBLEM, 5)
    assert memory.drawn(found, torch.rand(9, generator=generator(0))).tolist() == [0] * 9
    assert found.x.shape == (5, 6)
    assert not found.x.any()


def test_numbers_are_drawn_for_steps_and_for_the_end_of_a_task():
    draw, task = memory.drawing(PROBLEM, chance=4, second=3), task_of([0, 1, 0])
    in_steps = draw(generator(0), "train", 5, task, None)
    assert {name: tuple(leaf.shape) for name, leaf in in_steps.items()} == {
        "chance": (5, 4),
        "second": (5, 3),
    }
    assert draw(generator(0), "end_task", 1, task, None)["key"].shape == (1, 3)
    assert in_steps["chance"].dtype == F64
