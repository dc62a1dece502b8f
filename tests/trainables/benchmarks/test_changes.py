"""One data set seen differently in each task: permutations and rotations, in closed form."""

import pytest
import torch

from trainables import benchmarks
from trainables.benchmarks import changes

from .test_sources import write

IMAGES = torch.arange(3 * 16, dtype=torch.uint8).view(3, 4, 4)


# ---- permutations --------------------------------------------------------------------------------


def test_a_permutation_is_a_bijection_and_the_first_is_the_identity():
    assert changes.permuted(IMAGES, 0, 5, 7) is IMAGES
    orders = set()
    for t in range(1, 5):
        seen = changes.permuted(IMAGES, t, 5, 7)
        order = seen[0].flatten()  # the first image counts its pixels
        assert sorted(order.tolist()) == list(range(16))
        for image, found in zip(IMAGES, seen, strict=True):
            assert torch.equal(found.flatten(), image.flatten()[order.long()])
        orders.add(tuple(order.tolist()))
    assert len(orders) == 4


def test_a_permutation_follows_from_seed_and_task():
    assert torch.equal(changes.permuted(IMAGES, 3, 5, 7), changes.permuted(IMAGES, 3, 17, 7))
    assert not torch.equal(changes.permuted(IMAGES, 3, 5, 7), changes.permuted(IMAGES, 3, 5, 8))


# ---- rotations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [4, 5])
def test_quarter_turns_are_exact(side):
    images = (torch.arange(7 * side * side) * 37 % 256).to(torch.uint8).view(7, side, side)
    for quarters in range(4):
        expected = torch.rot90(images, quarters, (1, 2))
        assert torch.equal(changes.rotate(images, 90 * quarters), expected)


def test_a_turn_by_45_degrees_moves_a_spot_where_it_should():
    image = torch.zeros(1, 101, 101, dtype=torch.uint8)
    image[0, 49:52, 89:92] = 255  # 40 pixels to the right of the centre
    found = changes.rotate(image, 45)[0].float()
    places = torch.arange(101.0)
    centre = [float((found.sum(axis) * places).sum() / found.sum()) for axis in (1, 0)]
    offset = 40 / 2**0.5  # up and to the right: counter-clockwise
    assert centre == pytest.approx([50 - offset, 50 + offset], abs=0.05)
    assert float(found.sum()) == pytest.approx(9 * 255, rel=0.05)


def test_angles_lie_each_in_its_part_of_a_half_turn():
    for seed in range(10):
        found = [changes.angle(t, 6, seed) for t in range(6)]
        assert all(30 * t <= a < 30 * (t + 1) for t, a in enumerate(found))
    assert len({changes.angle(0, 6, seed) for seed in range(10)}) == 10


def test_many_images_are_turned_in_parts(monkeypatch):
    images = (torch.arange(252) * 37 % 256).to(torch.uint8).view(7, 6, 6)
    whole = changes.rotate(images, 33)
    monkeypatch.setattr(changes, "AT_ONCE", 3)
    assert torch.equal(changes.rotate(images, 33), whole)


# ---- streams -------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path):
    write(tmp_path, "MNIST", gz=False)
    return tmp_path


def both(name, data, **options):
    doors = benchmarks.load, benchmarks.load_test
    return [door(name, data_dir=data, **options) for door in doors]


def raw(x):
    """``(N, H, W)`` uint8 images from inputs."""
    return x[:, 0].add(1).mul(127.5).round().to(torch.uint8)


@pytest.mark.parametrize(("name", "tasks"), [("permuted_mnist", 10), ("permuted_mnist_17", 17)])
def test_training_validation_and_test_see_the_same_permutation(name, tasks, data):
    stream, test = both(name, data, scenario="domain", seed=3)
    assert len(stream.tasks) == len(test) == tasks
    first = stream.tasks[0]
    for t, (task, held) in enumerate(zip(stream.tasks, test, strict=True)):
        for now, then in ((task.train, first.train), (task.validation, first.validation),
                          (held, test[0])):  # fmt: skip
            expected = changes.permuted(raw(then.x), t, tasks, 3)
            assert torch.equal(raw(now.x), expected)
            assert torch.equal(now.y, then.y)


def test_every_task_has_all_examples_of_all_classes(data):
    stream, test = both("rotated_mnist", data, scenario="domain")
    for task, held in zip(stream.tasks, test, strict=True):
        assert task.classes == task.outputs == tuple(range(10))
        assert task.train.y.bincount().tolist() == [4] * 10
        assert task.validation.y.bincount().tolist() == [1] * 10
        assert held.y.bincount().tolist() == [3] * 10
    assert stream.problem.classes == 10
    assert stream.class_names == tuple("0123456789")


def test_the_number_of_tasks_is_that_of_the_changes(data):
    stream = benchmarks.load("permuted_mnist", data_dir=data, scenario="domain", tasks=3)
    assert len(stream.tasks) == 3
    with pytest.raises(ValueError, match="at least one task, got 0"):
        benchmarks.load("permuted_mnist", data_dir=data, tasks=0)


def test_in_the_domain_scenario_all_tasks_share_ten_outputs(data):
    stream = benchmarks.load("permuted_mnist", data_dir=data, scenario="domain", tasks=3)
    for t in range(3):
        assert stream.current(t).tolist() == [True] * 10
        assert stream.learned(t).tolist() == [t > 0] * 10
        assert stream.rivals(t).all()


@pytest.mark.parametrize("scenario", ["task", "class"])
def test_in_the_others_each_task_has_ten_of_its_own(scenario, data):
    stream, test = both("permuted_mnist", data, scenario=scenario, tasks=3)
    assert stream.problem.classes == len(stream.class_names) == 30
    assert stream.class_names[13] == "3, task 1"
    for t, (task, held) in enumerate(zip(stream.tasks, test, strict=True)):
        own = [10 * t <= i < 10 * (t + 1) for i in range(30)]
        assert stream.current(t).tolist() == own
        assert stream.learned(t).tolist() == [i < 10 * t for i in range(30)]
        for split in (task.train, task.validation, held):
            assert (
                sorted(set(split.y.tolist())) == list(task.outputs) == [*range(10 * t, 10 * t + 10)]
            )
        assert torch.equal(task.train.y - 10 * t, stream.tasks[0].train.y)
        seen, rivals = [i < 10 * (t + 1) for i in range(30)], stream.rivals(t)
        for i in range(30):
            same_task = [i // 10 == j // 10 for j in range(30)]
            assert rivals[i].tolist() == (seen if scenario == "class" else same_task)


def test_features_are_those_of_the_changed_images(data):
    options = {"data_dir": data, "scenario": "domain", "tasks": 2, "embedder": "base_task"}
    stream = benchmarks.load("permuted_mnist", **options)
    first, second = (task.train.x for task in stream.tasks)
    assert first.shape == second.shape == (40, 128)
    assert not torch.equal(first, second)
    alone = benchmarks.load("permuted_mnist", **options | {"tasks": 1})
    assert torch.equal(first, alone.tasks[0].train.x)


def test_no_example_is_trained_in_one_task_and_held_out_in_another(data):
    stream = benchmarks.load("rotated_mnist", data_dir=data, scenario="domain", seed=2)
    labels = [task.train.y for task in stream.tasks]
    assert all(torch.equal(labels[0], y) for y in labels)
    held = benchmarks.load("permuted_mnist", data_dir=data, scenario="domain", seed=2).tasks[0]
    trained = {tuple(row) for row in held.train.x.flatten(1).tolist()}
    assert not trained & {tuple(row) for row in held.validation.x.flatten(1).tolist()}
