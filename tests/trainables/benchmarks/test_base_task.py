"""Features that the first task teaches: whose they are, and that they are kept."""

import pytest
import torch

from trainables import benchmarks
from trainables.benchmarks import base_task


def load(name="gaussian", **options):
    return benchmarks.load(name, embedder="base_task", **options)


def inputs(stream, start=0):
    """All inputs of the tasks from ``start`` on."""
    return torch.cat([split.x for t in stream.tasks[start:] for split in (t.train, t.validation)])


@pytest.mark.parametrize("name", ["gaussian", "split_digits"])
def test_features_of_any_source(name):
    before = torch.random.get_rng_state()
    stream, test = load(name, dtype=torch.float64), benchmarks.load_test(name, embedder="base_task")
    assert torch.equal(before, torch.random.get_rng_state())
    assert stream.problem.input_shape == (128,)
    x = inputs(stream)
    assert x.dtype == torch.float64
    assert not x.requires_grad
    assert x.min() == 0  # after a ReLU
    assert [split.x.shape[1:] for split in test] == [(128,)] * len(stream.tasks)
    assert torch.equal(inputs(load(name, dtype=torch.float64)), x)
    assert not torch.allclose(inputs(load(name, seed=1, dtype=torch.float64)).mean(), x.mean())


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 8, 8), (3, 7, 5), (9,)])
def test_the_trunk_fits_any_input(shape):
    with torch.device("meta"):  # shapes only
        assert base_task.trunk(torch.Size(shape))(torch.empty(2, *shape)).shape == (2, 128)


def test_it_learns_what_tells_the_classes_apart():
    """Class is the sign of one input in twenty; the others are louder, and noise."""
    g = torch.Generator().manual_seed(0)
    x, y = 3 * torch.randn(2000, 20, generator=g), torch.arange(2000) % 2
    x[:, 7] = 2.0 * y - 1
    found = base_task.features(x, x[:1000], y[:1000])

    def nearest_mean(x):
        means = torch.stack([x[:1000][y[:1000] == c].mean(0) for c in (0, 1)])
        return (torch.cdist(x[1000:], means).argmin(-1) == y[1000:]).float().mean()

    assert nearest_mean(found) > 0.95
    assert nearest_mean(x) < 0.85


@pytest.fixture
def altered(monkeypatch):
    """A stream of the Gaussian source after a change of (x, y) outside some rows."""

    def of(change):
        source = benchmarks.BENCHMARKS["gaussian"].source

        def changed(data_dir, part):
            examples = source(data_dir, part)
            x, y = change(examples.x.clone(), examples.y.clone())
            return examples._replace(x=x, y=y)

        declared = benchmarks.Benchmark("altered", changed, (2, 2, 2), "")
        monkeypatch.setitem(benchmarks.BENCHMARKS, "altered", declared)
        return load("altered")

    return of


def test_only_training_examples_of_the_first_task_teach(altered, cache):
    plain, raw = load(), benchmarks.load("gaussian")
    first, train = plain.tasks[0].classes, set(map(tuple, raw.tasks[0].train.x.tolist()))
    (other, *_), weights = plain.tasks[1].classes, list((cache / "base_task").glob("*.safetensors"))

    def relabel(x, y):  # a class of the second task and one of the third change names
        (last, *_) = plain.tasks[2].classes
        return x, torch.where(y == other, last, torch.where(y == last, other, y))

    def move(x, y):  # all but what may teach
        teaches = torch.tensor([tuple(row) in train for row in x.tolist()])
        return torch.where(teaches[:, None], x, x.flip(1)), y

    assert torch.equal(inputs(altered(relabel), 1).sort(0)[0], inputs(plain, 1).sort(0)[0])
    found = altered(move)
    assert torch.equal(found.tasks[0].train.x, plain.tasks[0].train.x)
    assert not torch.equal(found.tasks[0].validation.x, plain.tasks[0].validation.x)
    assert list((cache / "base_task").glob("*.safetensors")) == weights

    def teach(x, y):
        x[(y == first[0]).nonzero()[:, 0]] *= 0.5
        return x, y

    altered(teach)
    assert len(list((cache / "base_task").glob("*.safetensors"))) == 2


def test_the_network_is_kept_and_a_damaged_file_is_made_anew(cache, monkeypatch):
    first = inputs(load())
    (file,) = cache.rglob("*.safetensors")

    learn = base_task.learn
    monkeypatch.setattr(base_task, "learn", lambda *_: pytest.fail("learned again"))
    assert torch.equal(inputs(load()), first)
    benchmarks.load_test("gaussian", embedder="base_task")

    monkeypatch.setattr(base_task, "learn", learn)
    file.write_bytes(file.read_bytes()[:1000])
    assert torch.equal(inputs(load()), first)
    assert list(cache.rglob("*.safetensors")) == [file]


@pytest.mark.parametrize("options", [{"name": "split_digits_10"}, {"tasks": 6}])
def test_one_class_teaches_nothing(options):
    for door in (benchmarks.load, benchmarks.load_test):
        with pytest.raises(ValueError, match=r"learns to tell .* has one class a task") as error:
            door(**{"name": "gaussian", "embedder": "base_task"} | options)
        assert "\n" not in str(error.value)
