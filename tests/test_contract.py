"""What every method must keep, whichever it is. A new file in trainables/ is tested on arrival."""

import ast
import functools
import math
import pathlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import optuna
import pytest
import torch
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

import search_spaces
import trainables
from search_spaces._tree import check_configuration
from tests.conftest import EXACTLY, F64, clone, first_tasks, generator, tiny
from trainables import benchmarks
from trainables.engine import checkpoint, noise, packs
from trainables.engine.fuse import Program, fuse, stack, unroll
from trainables.engine.learn import learn, learn_task
from trainables.engine.method import Method, configure
from trainables.engine.packs import Engine, in_lane

ROOT = pathlib.Path(__file__).parent.parent
LANES = 16
CLOSE = {"rtol": 1e-9, "atol": 1e-9}
each_method = pytest.mark.parametrize("name", trainables.names())


# ---- files ---------------------------------------------------------------------------------------


@each_method
def test_one_name_three_files(name):
    assert (ROOT / "search_spaces" / f"{name}.py").is_file()
    assert (ROOT / "tests" / "trainables" / f"test_{name}.py").is_file()
    assert name in search_spaces.names()


def test_every_space_has_its_method():
    assert search_spaces.names() == trainables.names()


@each_method
def test_every_file_in_trainables_is_a_method(name):
    module = trainables.load(name)
    assert all(hasattr(module, part) for part in ("Shape", "Hyper", "State", "build"))
    about = module.__doc__ or ""
    assert "Source:" in about
    assert "Differs from the source:" in about


def imports_of(path: pathlib.Path) -> set[str]:
    """Modules that a file names in its imports, wherever they stand."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == p or module.startswith(f"{p}.") for p in packages)


OURS = ("trainables", "search_spaces", "analysis", "run_search", "tests")
OTHERS = ("search_spaces", "analysis", "run_search", "tests", "ray")
METHODS = tuple(f"trainables.{name}" for name in trainables.names())
ARROWS = {  # of our own modules, what files may import; and what not, ours or not
    "search_spaces/**/*.py": (("search_spaces",), ("ray", "torch")),
    "trainables/[!_]*.py": (("trainables.engine",), ("ray", "optuna")),
    "trainables/engine/**/*.py": (("trainables",), (*METHODS, *OTHERS, "trainables.ray")),
    "trainables/benchmarks/**/*.py": (("trainables",), (*METHODS, *OTHERS, "trainables.ray")),
    # Not __main__, a command line like run_search.py: an ablation trains.
    "analysis/**/[!_]*.py": (("trainables.engine.metrics", "analysis"), ("ray", "torch")),
}


@pytest.mark.parametrize("files", ARROWS)
def test_dependencies_point_one_way(files):
    may, may_not = ARROWS[files]
    for path in ROOT.glob(files):
        for module in imports_of(path):
            assert not within(module, OURS) or within(module, may), f"{path} imports {module}"
            assert not within(module, may_not), f"{path} imports {module}"


# ---- the space -----------------------------------------------------------------------------------


def suggested(name: str, seed: int, **options) -> dict:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return search_spaces.load(name).space(study.ask(), **options)


@each_method
@pytest.mark.parametrize("search_shapes", [False, True])
def test_the_space_names_fields_of_the_method(name, search_shapes):
    module = trainables.load(name)
    reached = set()
    for seed in range(60):
        config = suggested(name, seed, search_shapes=search_shapes)
        configure(module, config)  # raises for what is no field and for what has no value
        reached |= config.keys()
    assert set(module.Hyper._fields) <= reached | set(module.Hyper._field_defaults)
    assert set(module.Shape._fields) <= reached | set(module.Shape._field_defaults)
    assert search_shapes == bool(reached & set(module.Shape._fields))


@each_method
def test_the_default_lies_within_the_space(name):
    module, files = trainables.load(name), search_spaces.load(name)
    check_configuration(files.space, files.DEFAULT)
    shape = module.Shape()._asdict()
    with_shapes = functools.partial(files.space, search_shapes=True)
    fields = set(with_shapes(optuna.trial.FixedTrial(files.DEFAULT | shape))) & set(shape)
    check_configuration(with_shapes, files.DEFAULT | {f: shape[f] for f in fields})
    # A method alone, without a configuration, is the default configuration.
    assert configure(module, files.DEFAULT) == (module.Shape(), module.Hyper())


# ---- the same numbers in all company -------------------------------------------------------------


def brief(hyper, steps: int):
    """The same hyperparameters with numbers of steps cut down; a ratio of steps stays."""
    fields = [f for f in hyper._fields if f.endswith("steps") and getattr(hyper, f) >= 50]
    return hyper._replace(**{f: steps + 3 * i for i, f in enumerate(fields)})


def trials_of(name: str, lanes: int, steps: Sequence[int]) -> list[tuple]:
    """Random configurations of one Shape, with these numbers of steps in turn, and seeds."""
    module = trainables.load(name)
    hypers = [configure(module, suggested(name, k))[1] for k in range(lanes)]
    texts = [f for f in module.Hyper._fields if isinstance(getattr(hypers[0], f), str)]
    for text in texts:
        assert len({getattr(h, text) for h in hypers}) > 1, f"the lanes share one {text}"
    return [(brief(hyper, steps[k % len(steps)]), k) for k, hyper in enumerate(hypers)]


class Result(NamedTuple):
    state: object
    losses: list[dict[str, float]]
    accuracy: list[np.ndarray]  # a row a task


def walk(engine: Engine, stream, trials) -> list[Result]:
    """Whole tasks, one after the other."""
    lanes = [engine.start(hyper, seed) for hyper, seed in trials]
    losses, rows = [], []
    for t, task in enumerate(stream.tasks):
        learned = learn_task(engine, lanes, stream.batch(t, engine.method.data), t)
        assert [one.diverged for one in learned] == [None] * len(trials)
        lanes = [a._replace(state=b.state) for a, b in zip(lanes, learned, strict=True)]
        losses.append([one.losses for one in learned])
        splits = [task.validation for task in stream.tasks[: t + 1]]
        rows.append(engine.evaluate([one.state for one in lanes], splits, stream.rivals(t)))
    return [
        Result(one.state, [loss[k] for loss in losses], [row[k] for row in rows])
        for k, one in enumerate(lanes)
    ]


@pytest.fixture(scope="session")
def engines(blobs) -> dict[str, Engine]:
    """One a method for all tests: tracing takes time."""
    modules = {name: trainables.load(name) for name in trainables.names()}
    return {
        name: Engine(module.build(blobs.problem, tiny(module)), blobs.problem)
        for name, module in modules.items()
    }


@pytest.fixture
def engine(name, engines):
    engines[name].seats = []  # those that a failed test left
    return engines[name]


def untraced(step, example) -> Program:
    """In the place of ``unroll``: a step as the method has it."""
    return Program(step, frozenset(range(len(example))), frozenset(range(len(example))))


@each_method
def test_a_trial_has_the_same_numbers_alone_and_among_others(name, engine, blobs):
    two_tasks, trials = first_tasks(blobs, 2), trials_of(name, LANES, [6, 15, 24, 33])
    together = walk(engine, two_tasks, trials)
    for k, trial in enumerate(trials):
        (alone,) = walk(engine, two_tasks, [trial])
        torch.testing.assert_close(together[k].state, alone.state, **CLOSE)
        torch.testing.assert_close(together[k].losses, alone.losses, **CLOSE)
        assert all(map(np.array_equal, together[k].accuracy, alone.accuracy))
    weights = {tree_leaves(one.state)[0].sum().item() for one in together}
    assert len(weights) == LANES  # they are different trials


@each_method
def test_a_trial_has_the_same_numbers_in_every_place(name, engine, blobs):
    one_task, trials = first_tasks(blobs, 1), trials_of(name, 4, [7, 7, 7, 10])
    forwards, backwards = (walk(engine, one_task, order) for order in (trials, trials[::-1]))
    for a, b in zip(forwards, backwards[::-1], strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


@each_method
def test_a_trial_has_the_same_numbers_whoever_comes_and_goes(name, engine, blobs, monkeypatch):
    """Trials come one by one, go on to their next task at once, and some leave in the middle."""
    rng, trials = random.Random(0), trials_of(name, LANES, [4, 9, 14, 33])
    leaves = {k: rng.randrange(3) for k in range(0, len(trials), 3)}  # in this task
    tasks, widths = [blobs.batch(t, engine.method.data) for t in range(3)], set()
    coming, inside, found = list(enumerate(trials)), {}, {k: [] for k in range(len(trials))}
    while coming or inside:
        for k, trial in [coming.pop() for _ in range(min(len(coming), rng.choice([0, 0, 1, 3])))]:
            inside[engine.join(engine.start(*trial), tasks[0], 0)] = k
        for seat, learned in engine.advance():
            k, t = inside.pop(seat), seat.t
            splits = [task.validation for task in blobs.tasks[: t + 1]]
            (row,) = engine.evaluate([learned.state], splits, blobs.rivals(t))
            found[k].append((learned.state, learned.losses, row))
            widths.add(learned.width)
            if t < 2:
                lane = seat.lane._replace(state=learned.state)
                inside[engine.join(lane, tasks[t + 1], t + 1)] = k
        for seat in [seat for seat, k in inside.items() if leaves.get(k) == seat.t]:
            if rng.random() < 0.5:
                engine.leave(seat)
                del inside[seat]
    assert max(widths) > 2
    assert len({len(tasks) for tasks in found.values()}) > 1

    def compare(k: int, alone: Result) -> None:
        states, losses, accuracy = zip(*found[k], strict=True)
        torch.testing.assert_close(states[-1], alone.state, **CLOSE)
        torch.testing.assert_close(list(losses), alone.losses, **CLOSE)
        assert all(map(np.array_equal, accuracy, alone.accuracy))

    stayed = [k for k, of_tasks in found.items() if len(of_tasks) == 3]
    for k in stayed:
        compare(k, *walk(engine, blobs, [trials[k]]))
    monkeypatch.setattr(packs, "unroll", untraced)
    k = stayed[0]
    compare(k, *walk(Engine(engine.method, engine.problem), blobs, [trials[k]]))


@each_method
def test_a_continued_trial_is_the_same_trial(name, engine, blobs, monkeypatch):
    """Between tasks a trial is its hyperparameters, its seed and its state, and nothing else."""
    two_tasks, (hyper, seed) = first_tasks(blobs, 2), trials_of(name, 4, [33])[0]
    (whole,) = walk(engine, two_tasks, [(hyper, seed)])
    monkeypatch.setattr(packs, "unroll", untraced)
    one = engine.start(hyper, seed)
    for t in range(2):
        elsewhere = Engine(engine.method, engine.problem)
        (learned,) = learn_task(elsewhere, [one], blobs.batch(t, engine.method.data), t)
        one = one._replace(state=learned.state)
    torch.testing.assert_close(one.state, whole.state, **CLOSE)


@each_method
def test_memory_is_part_of_the_state(name, engine):
    state = engine.method.init(generator(0))
    held = {leaf.data_ptr() for leaf in tree_leaves(state)}
    carried = tree_leaves(engine.method.carried(state))
    assert carried
    assert all(leaf.data_ptr() in held for leaf in carried)


@each_method
def test_the_bytes_that_are_counted_are_those_that_are_written(name, engine, tmp_path):
    carried = engine.method.carried(engine.method.init(generator(0)))
    checkpoint.save(tmp_path / "state", carried, {})
    written = (tmp_path / "state").read_bytes()
    header = 8 + int.from_bytes(written[:8], "little")  # safetensors: a length, JSON, the numbers
    assert checkpoint.size_in_bytes(carried) == len(written) - header


# ---- divergence ----------------------------------------------------------------------------------


@each_method
@pytest.mark.parametrize("steps", [20, 40])
def test_a_diverged_lane_says_why_and_changes_none_of_its_neighbours(name, steps, engine, blobs):
    healthy = trials_of(name, LANES, [steps])
    program = {
        f: v for f, v in healthy[0][0]._asdict().items() if isinstance(v, str) or "steps" in f
    }
    healthy = [(hyper._replace(**program), seed) for hyper, seed in healthy]  # in lock-step
    rates = [f for f in healthy[0][0]._fields if f == "lr" or f.endswith("_lr")]
    assert rates
    trials, bad = [*healthy], {1: 1e200, 4: math.nan, 6: math.inf}
    for k, rate in bad.items():
        hyper, seed = healthy[k]
        trials[k] = hyper._replace(**dict.fromkeys(rates, rate)), seed
    good = [k for k in range(LANES) if k not in bad]

    task = blobs.batch(0, engine.method.data)
    healthy, trials = ([engine.start(*trial) for trial in one] for one in (healthy, trials))
    without, with_them = (learn_task(engine, lanes, task, 0) for lanes in (healthy, trials))
    absent = dict(zip(good, learn_task(engine, [trials[k] for k in good], task, 0), strict=True))
    for k in bad:
        reason = with_them[k].diverged
        assert reason is not None
        assert reason.split(" became ")[0] in without[k].losses
        assert "in task 0, phase " in reason
    for k in good:
        ours = [(one.state, one.losses, one.diverged) for one in (with_them[k], without[k])]
        if steps <= noise.BLOCK:  # until they end all are side by side
            assert with_them[k].width == without[k].width == LANES
            torch.testing.assert_close(*ours, **EXACTLY)
        torch.testing.assert_close(*ours, **CLOSE)
        torch.testing.assert_close(ours[0], absent[k][:3], **CLOSE)


# ---- purity --------------------------------------------------------------------------------------


def calls(name: str, method: Method, stream) -> Iterator[tuple[str, Callable, tuple]]:
    """Every function of a method, with arguments from the middle of a stream."""
    module = trainables.load(name)
    plain = configure(module, search_spaces.load(name).DEFAULT)[1]
    hyper, task = in_lane(plain, F64), stream.batch(1, method.data)
    minibatch = task._replace(x=task.x[: method.batch_size], y=task.y[: method.batch_size])
    state, fresh = method.init(generator(0)), method.init(generator(1))
    state = method.begin_task(state, fresh, task, hyper)

    def noise(phase):
        return tree_map(lambda leaf: leaf[0], method.draw(generator(2), phase, 1, task, plain))

    for phase, step in method.steps.items():
        yield phase, step, (state, minibatch, hyper, noise(phase))
        yield f"draw {phase}", lambda p=phase: method.draw(generator(5), p, 3, task, plain), ()
    yield "begin_task", method.begin_task, (state, fresh, task, hyper)
    yield "end_task", method.end_task, (state, task, hyper, noise("end_task"))
    yield "predict", method.predict, (state, task.x)
    yield "init", lambda: method.init(generator(5)), ()


@each_method
def test_every_function_is_pure(name, engine, blobs):
    same = functools.partial(torch.testing.assert_close, **EXACTLY, equal_nan=True)
    for what, function, args in calls(name, engine.method, blobs):
        before = clone(args)
        random_state = torch.get_rng_state()
        first = clone(function(*args))
        assert torch.equal(random_state, torch.get_rng_state()), f"{what} moves the global state"
        same(args, before, msg=lambda m, what=what: f"{what} writes into its arguments: {m}")
        again = function(*args)
        same(first, again, msg=lambda m, what=what: f"{what} varies: {m}")


def on_leaves(function, structure):
    """A function of trees as a function of their leaves, which is what can be traced."""
    return lambda *leaves: tuple(tree_leaves(function(*tree_unflatten(leaves, structure))))


@each_method
@pytest.mark.parametrize("small", [True, False])
def test_a_traced_step_is_the_step(name, small, blobs):
    """Nothing of the example's values may be left in the traced operations.

    Their last digit may differ: ``tidy`` adds to a product of matrices in one operation.
    """
    module = trainables.load(name)
    method = module.build(blobs.problem, tiny(module) if small else module.Shape())
    for what, function, args in calls(name, method, blobs):
        if what not in method.steps:
            continue
        others = tree_map(lambda leaf: leaf.roll(1, 0) if leaf.dim() else 0.5 * leaf, args)
        example, new = stack([args, args]), stack([others, args])
        leaves, structure = tree_flatten(example)
        program, others = unroll(fuse(on_leaves(function, structure)), leaves), tree_leaves(new)
        expected = tree_leaves(fuse(function)(*new))
        found = program.run(
            *[leaf if i in program.reads else torch.zeros(1) for i, leaf in enumerate(others)]
        )
        for i, result in enumerate(expected):
            if i in program.writes:
                torch.testing.assert_close(found[i], result, **CLOSE)
            else:
                torch.testing.assert_close(others[i], result, **EXACTLY)


# ---- the default works ---------------------------------------------------------------------------


@each_method
@pytest.mark.parametrize("told", [(), ("generator", "classifier")])
def test_it_is_finite_under_its_default(name, told):
    module = trainables.load(name)
    stream = first_tasks(benchmarks.load("gaussian"), 2)  # float32, as in a search
    described = stream.problem._replace(attributes=torch.eye(6)[:, :4], attributes_in=told)
    stream = replace(stream, problem=described)
    shape, hyper = configure(module, search_spaces.load(name).DEFAULT)
    (walked,) = learn(module.build(stream.problem, shape), stream, [(brief(hyper, 20), 0)])
    assert walked.diverged is None
    assert all(leaf.isfinite().all() for leaf in tree_leaves(walked.state))
    assert all(math.isfinite(loss) for losses in walked.losses for loss in losses.values())
    assert np.isfinite(walked.accuracy[np.tri(2, dtype=bool)]).all()
