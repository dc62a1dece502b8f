"""Tasks, splits, labels and masks of the streams, against values worked out by hand."""

import dataclasses

import pytest
import torch
from sklearn.datasets import load_digits

from trainables import benchmarks
from trainables.benchmarks import sources
from trainables.benchmarks.splits import class_groups, hold_out
from trainables.benchmarks.stream import Split, Stream, Task
from trainables.engine.method import Problem


def rows(*splits):
    """The examples of some splits as a sorted list of tuples."""
    return sorted(tuple(x) for split in splits for x in split.x.flatten(1).tolist())


def equal(a, b):
    """Whether two streams hold the same tensors."""
    pairs = zip(a.tasks, b.tasks, strict=True)
    return all(
        s.classes == t.classes
        and torch.equal(s.train.x, t.train.x)
        and torch.equal(s.validation.x, t.validation.x)
        for s, t in pairs
    )


@pytest.fixture
def closed(monkeypatch):
    """Benchmarks whose sources refuse to open their test part."""

    def guard(source):
        def read(data_dir, part):
            assert part == "train", "test data opened"
            return source(data_dir, part)

        return read

    for name, b in benchmarks.BENCHMARKS.items():
        guarded = dataclasses.replace(b, source=guard(b.source))
        monkeypatch.setitem(benchmarks.BENCHMARKS, name, guarded)


# ---- splits --------------------------------------------------------------------------------------


def test_hold_out_takes_the_share_of_every_class_exactly():
    y = torch.tensor([0] * 10 + [1] * 25 + [2] * 2 + [3] * 33)
    held = hold_out(y, 0.2, 7, "validation")
    assert y[held].bincount().tolist() == [2, 5, 1, 7]  # 33/5 = 6.6; never none


def test_the_choice_of_a_class_does_not_depend_on_the_others():
    y = torch.tensor([0, 1, 2] * 20)
    some = y != 1
    assert torch.equal(hold_out(y, 0.2, 0, "v")[some], hold_out(y[some], 0.2, 0, "v"))


def test_class_groups_hold_every_class_once_and_agree_between_cuts():
    for seed in range(20):
        pairs, singles = class_groups((2,) * 5, seed), class_groups((1,) * 10, seed)
        assert sum(pairs, ()) == sum(singles, ())
        assert sorted(sum(pairs, ())) == list(range(10))
    assert len({class_groups((2,) * 5, seed) for seed in range(20)}) == 20


def test_seed_0_is_this_permutation_on_every_machine():
    assert class_groups((2,) * 5, 0) == ((6, 5), (9, 4), (7, 8), (0, 3), (1, 2))


def test_digits_are_divided_without_loss_or_overlap():
    everything = load_digits()
    stream, test = benchmarks.load("split_digits"), benchmarks.load_test("split_digits")
    parts = [*(t.train for t in stream.tasks), *(t.validation for t in stream.tasks), *test]
    assert rows(*parts) == sorted(map(tuple, (everything.data / 8 - 1).tolist()))
    for task, held in zip(stream.tasks, test, strict=True):
        for c in task.classes:
            n = int((everything.target == c).sum())
            n_test = round(0.2 * n)
            n_validation = round(0.2 * (n - n_test))
            assert int((held.y == c).sum()) == n_test
            assert int((task.validation.y == c).sum()) == n_validation
            assert int((task.train.y == c).sum()) == n - n_test - n_validation


def test_seeds_reproduce_and_differ_and_leave_the_global_generators_alone():
    before = torch.random.get_rng_state()
    one, again, other = (benchmarks.load("split_digits", seed=s) for s in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert equal(one, again)
    assert not equal(one, other)


def test_the_test_part_does_not_depend_on_the_seed():
    assert rows(*benchmarks.load_test("split_digits", seed=1)) == rows(
        *benchmarks.load_test("split_digits", seed=2)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inputs_are_scaled_by_constants_in_the_dtype_asked_for(dtype):
    stream = benchmarks.load("split_digits", dtype=dtype)
    largest = max(len(task.train.y) for task in stream.tasks)
    assert stream.problem == Problem((1, 8, 8), 10, dtype, examples=largest)
    x = torch.cat([task.train.x for task in stream.tasks])
    assert x.dtype == dtype
    assert (x.min(), x.max()) == (-1, 1)
    assert x.mul(8).frac().eq(0).all()  # 17 levels


def test_gaussian_is_small_in_range_and_separable():
    stream = benchmarks.load("gaussian")
    assert stream.problem == Problem((8,), 6, examples=80)
    assert [len(t.train.y) for t in stream.tasks] == [80] * 3
    assert [len(t.validation.y) for t in stream.tasks] == [20] * 3
    train = stream.batch(2, "seen")
    assert train.x.abs().max() <= 1
    means = torch.stack([train.x[train.y == c].mean(0) for c in range(6)])
    for split in benchmarks.load_test("gaussian"):
        assert torch.cdist(split.x, means).argmin(-1).eq(split.y).float().mean() > 0.95


@pytest.mark.parametrize("tasks", [1, 2, 10])
def test_the_classes_are_cut_into_as_many_tasks_as_asked_for(tasks):
    own, stream = benchmarks.load("split_digits"), benchmarks.load("split_digits", tasks=tasks)
    test = benchmarks.load_test("split_digits", tasks=tasks)
    assert [len(task.classes) for task in stream.tasks] == [10 // tasks] * tasks
    assert sum((t.classes for t in stream.tasks), ()) == sum((t.classes for t in own.tasks), ())
    for part in ("train", "validation"):  # the same examples, cut elsewhere
        ours, theirs = ([getattr(task, part) for task in s.tasks] for s in (stream, own))
        assert rows(*ours) == rows(*theirs)
    assert [set(split.y.tolist()) for split in test] == [set(t.classes) for t in stream.tasks]


def test_one_task_is_joint_training():
    stream = benchmarks.load("gaussian", tasks=1)
    assert stream.rivals(0).all()
    assert stream.current(0).all()
    assert len(stream.batch(0).y) == 240


@pytest.mark.parametrize(("name", "count"), [("memorize", 10_000), ("memorize_1000", 1000)])
def test_what_is_to_be_recalled_is_what_is_shown(name, count):
    stream, (test,) = benchmarks.load(name, seed=5), benchmarks.load_test(name, seed=6)
    (task,) = stream.tasks
    assert stream.problem == Problem((32,), 1, examples=count)
    for split in (task.validation, test):
        assert torch.equal(split.x, task.train.x)  # in this order
    assert torch.equal(task.train.x, sources.vectors(count)(None, "train").x)
    assert abs(task.train.x.mean()) < 5 / (32 * count) ** 0.5
    assert abs(task.train.x.var() - 1) < 5 * (2 / (32 * count)) ** 0.5  # of a χ²


# ---- the test set is closed ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["split_digits", "split_digits_10", "gaussian"])
def test_load_never_opens_the_test_part(name, closed):
    benchmarks.load(name)
    with pytest.raises(AssertionError, match="test data opened"):
        benchmarks.load_test(name)


@pytest.mark.parametrize("scenario", benchmarks.SCENARIOS)
def test_load_test_agrees_with_load(scenario):
    stream = benchmarks.load("split_digits", scenario=scenario, seed=3)
    test = benchmarks.load_test("split_digits", scenario=scenario, seed=3)
    everything = load_digits()
    inputs = map(tuple, (everything.data / 8 - 1).tolist())
    label = dict(zip(inputs, everything.target.tolist(), strict=True))
    for task, held in zip(stream.tasks, test, strict=True):
        for split in (task.train, task.validation, held):
            true = [label[tuple(x)] for x in split.x.flatten(1).tolist()]
            if scenario == "domain":
                true = [task.classes.index(c) for c in true]
            assert split.y.tolist() == true
            assert split.y.dtype == torch.int64


# ---- class attributes ----------------------------------------------------------------------------


@pytest.fixture
def described(monkeypatch):
    """The Gaussian benchmark with attributes (3, c, 4) of class c; "plain" is it without."""
    plain = benchmarks.BENCHMARKS["gaussian"]
    table = torch.tensor([[3.0, c, 4.0] for c in range(6)], dtype=torch.float64)
    for name, attributes in (("gaussian", lambda data_dir: table), ("plain", None)):
        declared = dataclasses.replace(plain, name=name, attributes=attributes)
        monkeypatch.setitem(benchmarks.BENCHMARKS, name, declared)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("generator", ("generator",)),
        ("classifier", ("classifier",)),
        ("both", ("generator", "classifier")),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_attributes_are_those_of_the_classes_at_length_1(described, asked, told, dtype):
    problem = benchmarks.load("gaussian", attributes=asked, dtype=dtype).problem
    assert problem.attributes_in == told
    expected = [[a / (25 + c * c) ** 0.5 for a in (3, c, 4)] for c in range(6)]
    torch.testing.assert_close(problem.attributes, torch.tensor(expected, dtype=dtype))


def test_nobody_is_told_unasked(described):
    for scenario in benchmarks.SCENARIOS:
        problem = benchmarks.load("gaussian", scenario=scenario).problem
        assert problem.attributes is None
        assert problem.attributes_in == ()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("plain", {}, r"plain has no class attributes: .*\(.*\bgaussian\b.*\)"),
        ("gaussian", {"scenario": "domain"}, "domain scenario .* several classes"),
        ("gaussian", {"attributes": "bth"}, "unknown attributes 'bth': .* 'both'"),
    ],
)
def test_attributes_that_nobody_has_are_refused(described, name, options, message):
    for door in (benchmarks.load, benchmarks.load_test):
        with pytest.raises(ValueError, match=message) as error:
            door(name, **{"attributes": "both"} | options)
        assert "\n" not in str(error.value)


# ---- large inputs --------------------------------------------------------------------------------


def kinds(stream):
    """Streams of the same size and other inputs."""
    yield stream
    yield dataclasses.replace(stream, tasks=stream.tasks[::-1])
    yield dataclasses.replace(stream, tasks=stream.tasks[1:4])
    for other in ({"seed": 1}, {"embedder": "unit"}, {"dtype": torch.float64}):
        yield benchmarks.load("split_digits", **other)


def test_large_inputs_are_the_same_from_a_file_that_is_made_once(cache, monkeypatch):
    own = [one.batch(1, "seen") for one in kinds(benchmarks.load("split_digits"))]
    monkeypatch.setattr("trainables.benchmarks.stream.SHARED", 0)
    monkeypatch.setattr("trainables.benchmarks.stream.FILES", 9)
    for _ in range(2):
        for expected, one in zip(own, kinds(benchmarks.load("split_digits")), strict=True):
            found = one.batch(1, "seen")
            assert torch.equal(found.x, expected.x) and torch.equal(found.y, expected.y)
            assert one.tasks[0].train.x.data_ptr() == found.x.data_ptr()
        assert len([*(cache / "streams").glob("*.safetensors")]) == len(own)

    for file in [*(cache / "streams").glob("*.safetensors")]:  # it is what is read
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content[:-4] + b"\0\0\x20\x41")
    assert benchmarks.load("split_digits").batch(4, "seen").x.flatten()[-1] == 10.0


# ---- masks ---------------------------------------------------------------------------------------


def tiny(scenario, classes):
    """Two tasks, (2, 0) and (1, 3); example i of task t is the number 10 t + i."""
    tasks = []
    for t, group in enumerate([(2, 0), (1, 3)]):
        x = torch.tensor([[10.0 * t], [10.0 * t + 1]])
        y = torch.arange(2) if scenario == "domain" else torch.tensor(group)
        tasks.append(Task(group, tuple(y.tolist()), Split(x, y), Split(x, y)))
    names = tuple(map(str, range(classes)))
    return Stream("tiny", scenario, 0, Problem((1,), classes), names, tuple(tasks))


def bools(*texts):
    """``bools("10", "01")``: a matrix of booleans, a row each."""
    return [[c == "1" for c in text] for text in texts]


def test_class_incremental_by_hand():
    stream = tiny("class", 4)
    assert [stream.current(t).tolist() for t in (0, 1)] == bools("1010", "0101")
    assert [stream.learned(t).tolist() for t in (0, 1)] == bools("0000", "1010")
    assert [stream.seen(t).tolist() for t in (0, 1)] == bools("1010", "1111")
    assert stream.rivals(0).tolist() == bools(*["1010"] * 4)
    assert stream.rivals(1).tolist() == bools(*["1111"] * 4)


def test_task_incremental_by_hand():
    stream = tiny("task", 4)
    assert [stream.current(t).tolist() for t in (0, 1)] == bools("1010", "0101")
    assert [stream.learned(t).tolist() for t in (0, 1)] == bools("0000", "1010")
    for t in (0, 1):
        assert stream.rivals(t).tolist() == bools("1010", "0101", "1010", "0101")


def test_domain_incremental_by_hand():
    stream = tiny("domain", 2)
    assert [stream.current(t).tolist() for t in (0, 1)] == bools("11", "11")
    assert [stream.learned(t).tolist() for t in (0, 1)] == bools("00", "11")
    assert [stream.seen(t).tolist() for t in (0, 1)] == bools("11", "11")
    assert stream.rivals(0).tolist() == bools("11", "11")


def declare(monkeypatch, **changes):
    """The benchmark ``other``: ``gaussian``, declared differently."""
    declared = dataclasses.replace(benchmarks.BENCHMARKS["gaussian"], name="other", **changes)
    monkeypatch.setitem(benchmarks.BENCHMARKS, "other", declared)


def by_hand(size, *outputs):
    """``(size,)`` bool, True at some places."""
    return [i in outputs for i in range(size)]


def test_tasks_of_unequal_size_share_the_first_outputs_of_the_domain_scenario(monkeypatch):
    declare(monkeypatch, classes=(2, 3, 1))
    with pytest.raises(ValueError, match="one class a task"):
        benchmarks.load("other", scenario="domain")
    declare(monkeypatch, classes=(2, 4))
    stream = benchmarks.load("other", scenario="domain")
    assert [len(task.classes) for task in stream.tasks] == [2, 4]
    assert [task.outputs for task in stream.tasks] == [(0, 1), (0, 1, 2, 3)]
    assert stream.current(0).tolist() == stream.learned(1).tolist() == by_hand(4, 0, 1)
    assert stream.rivals(0).tolist() == [by_hand(4, 0, 1)] * 4
    assert stream.rivals(1).all()
    first, second = (task.classes for task in stream.tasks)
    pairs = zip("abcdef", range(6), strict=True)
    letter = {c: name for name, c in pairs}
    assert stream.class_names == (
        *(f"{letter[a]} / {letter[b]}" for a, b in zip(first, second[:2], strict=True)),
        *(letter[c] for c in second[2:]),
    )


@pytest.mark.parametrize("scenario", ["class", "task"])
def test_tasks_of_unequal_size_keep_their_labels(scenario, monkeypatch):
    declare(monkeypatch, classes=(3, 2, 1) if scenario == "class" else (2, 4))
    stream, test = (
        door("other", scenario=scenario) for door in (benchmarks.load, benchmarks.load_test)
    )
    assert sum((t.classes for t in stream.tasks), ()) == sum(class_groups((6,), 0), ())
    for t, (task, held) in enumerate(zip(stream.tasks, test, strict=True)):
        assert set(task.train.y.tolist()) == set(held.y.tolist()) == set(task.classes)
        assert stream.current(t).tolist() == by_hand(6, *task.classes)
    before = stream.tasks[0].classes
    assert stream.learned(1).tolist() == by_hand(6, *before)
    expected = [by_hand(6, *before)] * 6
    if scenario == "task":
        own = {c: task.classes for task in stream.tasks for c in task.classes}
        expected = [by_hand(6, *own[c]) for c in range(6)]
    assert stream.rivals(0).tolist() == expected


def test_natural_tasks_are_shuffled_and_their_classes_are_not(monkeypatch):
    declare(monkeypatch, classes=(1, 2, 3), natural=True)
    found = {tuple(t.classes for t in benchmarks.load("other", seed=s).tasks) for s in range(20)}
    assert {frozenset(groups) for groups in found} == {frozenset([(0,), (1, 2), (3, 4, 5)])}
    assert len(found) == 6  # every order
    with pytest.raises(ValueError, match="3 tasks of its own: expected that number, got 2"):
        benchmarks.load("other", tasks=2)


def test_who_only_counts_holds_no_inputs():
    stream = benchmarks.load("split_digits")
    split = stream.tasks[0].train
    assert len(split.y) and not isinstance(split._x, torch.Tensor)
    x = split.x
    assert split.x is x


def test_all_batches_and_tasks_are_parts_of_one_tensor():
    stream = benchmarks.load("split_digits")
    before = [task.train.x for task in stream.tasks]
    whole = stream.batch(4, "seen").x
    for t, task in enumerate(stream.tasks):
        assert torch.equal(task.train.x, before[t])
        assert torch.equal(stream.batch(t).x, before[t])
        assert torch.equal(stream.batch(t, "seen").x, torch.cat(before[: t + 1]))
        for part in (task.train.x, stream.batch(t).x, stream.batch(t, "seen").x):
            assert part.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()


def test_batch_holds_a_task_or_all_so_far():
    stream = tiny("class", 4)
    task, seen = stream.batch(1), stream.batch(1, "seen")
    assert task.x.tolist() == [[10], [11]]
    assert task.y.tolist() == [1, 3]
    assert seen.x.tolist() == [[0], [1], [10], [11]]
    assert seen.y.tolist() == [2, 0, 1, 3]
    for batch in (task, seen):
        assert torch.equal(batch.current, stream.current(1))
        assert torch.equal(batch.learned, stream.learned(1))
        assert torch.equal(batch.rivals, stream.rivals(1))
    assert stream.batch(0, "seen").y.tolist() == [2, 0]


@pytest.mark.parametrize("scenario", benchmarks.SCENARIOS)
def test_every_label_is_current_and_among_its_rivals(scenario):
    stream = benchmarks.load("split_digits", scenario=scenario)
    assert len(stream.class_names) == stream.problem.classes == (2 if scenario == "domain" else 10)
    for t, task in enumerate(stream.tasks):
        y = torch.cat([task.train.y, task.validation.y])
        assert stream.current(t)[y].all()
        assert stream.rivals(t)[y, y].all()


def test_outputs_of_the_domain_scenario_are_named_after_all_their_classes():
    stream = benchmarks.load("split_digits", scenario="domain", seed=0)
    assert stream.class_names == ("6 / 9 / 7 / 0 / 1", "5 / 4 / 8 / 3 / 2")


# ---- names ---------------------------------------------------------------------------------------


def test_declarations_agree_with_their_sources():
    for name in ("split_digits", "split_digits_10", "gaussian"):
        b = benchmarks.BENCHMARKS[name]
        assert sum(b.classes) == len(b.source(None, "train").class_names)
    assert benchmarks.names()[0] == "split_digits"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("split_mnits", {}, "unknown benchmark 'split_mnits': did you mean 'split_mnist'"),
        ("split_digits", {"scenario": "clas"}, "unknown scenario 'clas': did you mean 'class'"),
        ("split_digits", {"embedder": "resnet17"}, "unknown embedder 'resnet17': did you mean "),
        ("gaussian", {"embedder": "resnet18"}, "needs images"),
        ("split_digits_10", {"scenario": "domain"}, "use the class scenario"),
        ("split_digits_10", {"scenario": "task"}, "use the class scenario"),
        ("split_digits", {"scenario": "task", "tasks": 10}, "use the class scenario"),
        ("split_digits", {"tasks": 3}, r"10 classes: .* divides them \(1, 2, 5, 10\), got 3"),
        ("split_digits", {"tasks": 0}, "got 0"),
        ("split_digits", {"tasks": -5}, "got -5"),
        ("split_digits", {"tasks": 20}, "got 20"),
    ],
)
def test_wrong_names_are_answered_in_one_line(name, options, message):
    for door in (benchmarks.load, benchmarks.load_test):
        with pytest.raises(ValueError, match=message) as error:
            door(name, **options)
        assert "\n" not in str(error.value)


def test_a_source_is_read_once():
    assert sources.digits(None, "train") is sources.digits(None, "train")
