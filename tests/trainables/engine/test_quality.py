"""Generator quality: against real data, a classifier of somebody else's, and closed forms."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from sklearn.neural_network import MLPClassifier
from torch import Tensor

from tests.conftest import F64, clone, generator
from trainables import benchmarks
from trainables.benchmarks import Split
from trainables.engine import quality
from trainables.engine.method import Method
from trainables.engine.quality import (
    classification_accuracy_score,
    explained_variance,
    measure,
    nearest_distance,
    reconstruction_error,
)


class Memory(NamedTuple):
    x: Tensor  # (C, m, *input), as many examples of every class


def memory(splits) -> Memory:
    x, y = torch.cat([s.x for s in splits]), torch.cat([s.y for s in splits])
    least = min(int((y == c).sum()) for c in y.unique())
    return Memory(torch.stack([x[y == c][:least] for c in range(int(y.max()) + 1)]))


def replayed(state: Memory, y: Tensor, z: Tensor) -> Tensor:
    """The perfect generator: stored examples, chosen by z."""
    chosen = torch.special.ndtr(z[:, 0]) * state.x.shape[1]
    return state.x[y, chosen.long().clamp_max(state.x.shape[1] - 1)]


def method(**parts) -> Method:
    nothing = lambda *_: None  # noqa: E731
    return Method(init=nothing, schedule=nothing, steps={}, predict=nothing, latent=2, **parts)


def of(stream, tasks=None):
    """Training data, validation data and masks after so many tasks."""
    t = (tasks or len(stream.tasks)) - 1
    some = stream.tasks[: t + 1]
    train, held_out = [one.train for one in some], [one.validation for one in some]
    return train, held_out, stream.seen(t), stream.rivals(t)


def scored(make, stream, seed=0):
    _, held_out, seen, rivals = of(stream)
    return classification_accuracy_score(make, held_out, seen, rivals, generator(seed))


def perfect(stream):
    state = memory([task.train for task in stream.tasks])
    return quality.maker(method(sample=replayed), state, stream.problem.dtype, "cpu")


@pytest.fixture(scope="module")
def digits():
    return benchmarks.load("split_digits")


# ---- classification accuracy score ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["gaussian", "split_digits"])
def test_a_perfect_generator_scores_as_real_data_does(name):
    stream = benchmarks.load(name)
    train, held_out, *_ = of(stream)
    x = torch.cat([s.x.flatten(1) for s in train]).numpy()
    y = torch.cat([s.y for s in train]).numpy()
    steps = {"max_iter": 30, "batch_size": 128, "tol": 0.0, "n_iter_no_change": 30}
    reference = MLPClassifier((256,), random_state=0, learning_rate_init=1e-3, **steps)
    with pytest.warns(UserWarning, match="Maximum iterations"):
        reference.fit(x, y)
    expected = [reference.score(s.x.flatten(1).numpy(), s.y.numpy()) for s in held_out]
    row = scored(perfect(stream), stream)
    assert len(row) == len(held_out)
    assert np.mean(row) == pytest.approx(np.mean(expected), abs=0.02)
    assert np.mean(row) > 0.95


def test_samples_of_no_class_score_as_chance_and_of_one_class_by_that_class(digits):
    _, held_out, *_ = of(digits)
    train = perfect(digits)
    noise = scored(lambda y, own: torch.randn(len(y), 64, generator=own), digits)
    assert np.mean(noise) < 0.25
    swapped = scored(lambda y, own: train((y + 1) % 10, own), digits)  # every label is wrong
    assert np.mean(swapped) < 0.05
    classes = digits.tasks[0].classes
    lost = scored(  # samples of the first task are of its first class, whatever their label
        lambda y, own: train(torch.where(y == classes[1], classes[0], y), own), digits
    )
    half = (held_out[0].y == classes[0]).double().mean().item()
    assert lost[0] < max(half, 1 - half) + 0.1
    assert np.mean(lost[1:]) > 0.93


def test_what_competes_is_the_scenario():
    """In the task scenario a sample need only be unlike its own task's other class."""
    by_task, by_class = (benchmarks.load("split_digits", scenario=s) for s in ("task", "class"))
    train = perfect(by_class)
    pairs = torch.tensor([task.classes for task in by_class.tasks])  # (T, 2)

    def confused(y, own):
        """Every second sample has its label's place in a task, but the task is any."""
        place = (y[:, None] == pairs[:, 1]).any(-1).long()
        other = pairs[torch.randint(5, (len(y),), generator=own), place]
        return train(torch.where(torch.arange(len(y)) % 2 == 0, other, y), own)

    assert np.mean(scored(confused, by_task)) > np.mean(scored(confused, by_class)) + 0.02


def test_a_score_is_a_function_of_its_seed(digits):
    make, random_state = perfect(digits), torch.get_rng_state()
    assert scored(make, digits) == scored(make, digits)
    assert scored(make, digits, seed=1) != scored(make, digits)
    assert torch.equal(random_state, torch.get_rng_state())


# ---- copies --------------------------------------------------------------------------------------


def test_distances_are_those_of_nearest_neighbours(digits):
    train, held_out, seen, _ = of(digits, 2)
    far = 3.0

    def moved(y, own):  # along an axis that the data does not use, all at the same distance
        x = perfect(digits)(y, own).flatten(1)
        return torch.cat([x, torch.full((len(y), 1), far)], 1)

    def pad(s):
        return Split(torch.cat([s.x.flatten(1), torch.zeros(len(s.y), 1)], 1), s.y)

    row = nearest_distance(moved, *([pad(s) for s in part] for part in (train, held_out)),
                           seen, generator(0))  # fmt: skip
    expected = []
    for a, b in zip(train, held_out, strict=True):
        real = []
        for c in a.y.unique():
            tree = NearestNeighbors(n_neighbors=1).fit(a.x[a.y == c].flatten(1).numpy())
            real.append(tree.kneighbors(b.x[b.y == c].flatten(1).numpy())[0].mean())
        expected.append(far / np.mean(real))
    assert row == pytest.approx(expected, rel=1e-4)


def test_copies_are_near_and_new_examples_as_far_as_real_ones():
    stream = benchmarks.load("gaussian", dtype=F64)
    train, held_out, seen, _ = of(stream)
    copies = nearest_distance(perfect(stream), train, held_out, seen, generator(0))
    assert copies == pytest.approx([0.0] * 3, abs=1e-6)
    new = memory(held_out)  # as real as real can be
    make = quality.maker(method(sample=replayed), new, F64, "cpu")
    assert nearest_distance(make, train, held_out, seen, generator(0)) == pytest.approx(
        [1.0] * 3, abs=0.15
    )


# ---- reconstruction ------------------------------------------------------------------------------


def test_a_principal_subspace_explains_the_variance_of_its_components(digits):
    _, held_out, *_ = of(digits)
    x = torch.cat([s.x.flatten(1) for s in held_out])
    pca = PCA(10).fit(x.numpy())

    def back(one):
        components = pca.transform(one.flatten(1).numpy())
        return torch.from_numpy(pca.inverse_transform(components)).view_as(one)

    errors = reconstruction_error(back, held_out)
    for error, split in zip(errors, held_out, strict=True):
        assert error == pytest.approx(float(((back(split.x) - split.x) ** 2).mean()))
    expected = pca.explained_variance_ratio_.sum()
    explained = quality.by_examples(explained_variance(errors, held_out), held_out)
    assert explained == pytest.approx(expected, abs=1e-5)


def test_the_mean_explains_nothing_and_the_identity_everything(digits):
    _, held_out, *_ = of(digits)
    mean = torch.cat([s.x for s in held_out]).mean(0)
    errors = reconstruction_error(lambda x: mean.expand_as(x), held_out)
    explained = explained_variance(errors, held_out)
    assert quality.by_examples(explained, held_out) == pytest.approx(0.0, abs=1e-6)
    assert reconstruction_error(lambda x: x, held_out) == [0.0] * 5
    assert explained_variance([0.0] * 5, held_out) == [1.0] * 5


# ---- of a method ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "names"),
    [
        ({}, []),
        ({"sample": replayed}, ["cas", "nearest_distance"]),
        ({"reconstruct": lambda state, x: x}, ["reconstruction_error", "explained_variance"]),
        (
            {"sample": replayed, "reconstruct": lambda state, x: 0 * x},
            ["cas", "nearest_distance", "reconstruction_error", "explained_variance"],
        ),
    ],
)
@pytest.mark.parametrize("scenario", benchmarks.SCENARIOS)
def test_what_applies_is_measured_and_nothing_is_changed(parts, names, scenario, monkeypatch):
    monkeypatch.setattr(quality, "STEPS", 32)
    stream = benchmarks.load("gaussian", scenario=scenario)
    state = memory([task.train for task in stream.tasks])
    before, random_state = clone(state), torch.get_rng_state()
    for tasks in (1, 2, 3):
        given = *of(stream, tasks), 7
        found = measure(method(**parts), state, *given)
        assert list(found) == names
        assert all(len(row) == tasks and np.isfinite(row).all() for row in found.values())
        assert found == measure(method(**parts), state, *given)
    assert torch.equal(state.x, before.x) and torch.equal(random_state, torch.get_rng_state())


def test_a_summary_counts_every_example_once():
    splits = [Split(torch.full((n, 2), v), torch.zeros(n)) for n, v in ((10, 1.0), (30, -1.0))]
    found = quality.summary({"cas": [1.0, 0.5], "nearest_distance": [1.0, 1.0]}, splits)
    assert found == {"cas": pytest.approx(0.625)}
    # The mean is -0.5, the variance 10/40 · 1.5² + 30/40 · 0.5² = 0.75; the error 0.3.
    row = explained_variance([0.6, 0.2], splits)
    assert row == pytest.approx([1 - 0.6 / 0.75, 1 - 0.2 / 0.75])
    found = quality.summary({"reconstruction_error": [0.6, 0.2], "explained_variance": row}, splits)
    assert found == {"explained_variance": pytest.approx(1 - 0.3 / 0.75)}
    assert quality.summary({}, splits) == {}


def test_generated_features_are_compared_with_features(monkeypatch):
    """A memory of features, and an embedder that makes them of examples."""
    monkeypatch.setattr(quality, "STEPS", 32)
    stream = benchmarks.load("gaussian")
    train = [task.train for task in stream.tasks]
    features = [Split(3 * split.x + 1, split.y) for split in train]
    embedded = method(sample=replayed, features=lambda state, x: 3 * x + 1)
    found = measure(embedded, memory(features), *of(stream, 3), 7)
    assert max(found["nearest_distance"]) < 0.01  # copies
    assert min(found["cas"]) > 0.9
    blind = measure(method(sample=replayed), memory(features), *of(stream, 3), 7)
    assert max(blind["nearest_distance"]) > 5


@pytest.mark.parametrize(
    ("shape", "examples", "steps"),
    [
        ((512,), 0, 192),
        ((1, 8, 8), 1150, 192),
        ((512,), 2400, 448),
        ((512,), 10**6, 1024),
        ((1, 28, 28), 12_000, 256),
        ((1, 28, 28), 48_000, 1024),
    ],
)
def test_steps_grow_with_the_data(shape, examples, steps):
    assert quality.steps_for(examples, quality.judge_of(shape)) == steps


def test_images_are_judged_by_convolutions():
    """Where the class is a pattern and its place is anything, convolutions learn sooner."""
    place = generator(0)

    def stripes(y, own):
        """Two lines of five pixels, side by side, across (1) or down (0), anywhere."""
        x = torch.zeros(len(y), 28, 28)
        rows, columns = (torch.randint(22, (len(y),), generator=own) for _ in range(2))
        for i, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
            x[i, row : row + 5, column] = x[i, row : row + 5, column + 2] = 1.0
        return torch.where(y[:, None, None] > 0, x.mT, x)[:, None]

    y = torch.arange(400) % 2
    held_out, both = [Split(stripes(y, place), y)], torch.ones(2, dtype=torch.bool)
    judged = {
        shape: classification_accuracy_score(
            lambda y, own, shape=shape: stripes(y, own).reshape(-1, *shape),
            [Split(held_out[0].x.reshape(-1, *shape), y)],
            both, both[:, None] & both, generator(1), 32,
        )[0]
        for shape in ((1, 28, 28), (784,))
    }  # fmt: skip
    assert judged[1, 28, 28] > 0.97
    assert judged[784,] < 0.95
