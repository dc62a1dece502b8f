"""How many engines a study has, on what, and how many lanes each of them trains."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayError

from trainables import sequential
from trainables.engine.widths import Cost
from trainables.ray import engines
from trainables.ray.cluster import Cluster, ClusterError
from trainables.ray.engine import EngineActor
from trainables.ray.engines import measured_lanes, most_lanes, placed, share, started
from trainables.ray.settings import Study
from trainables.ray.study import choose_lanes
from trainables.ray.trial import Plan

PLAN = Plan("sequential", "gaussian", "class", 0)
STUDY = Study("s", "sequential", "gaussian")


def cluster(cpus: int, gpus: int, local: bool = True) -> Cluster:
    return Cluster(None, "127.0.0.1:1", cpus, gpus, local, (cpus,))


# ---- how many, and on what -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cpus", "gpus", "asked", "found"),
    [
        (8, 0, (None, None), (8, 0)),  # one a CPU
        (8, 0, (3, None), (3, 0)),
        (2, 0, (3, None), (3, 0)),
        (0, 0, (None, None), (1, 0)),  # a cluster's workers are on their way
        (8, 2, (None, None), (2, 1)),  # one a GPU
        (8, 1, (4, None), (4, 0.25)),  # which they share
        (8, 4, (2, None), (2, 1)),
        (8, 2, (None, 0.5), (4, 0.5)),
        (8, 1, (None, 0.1), (10, 0.1)),
        (8, 4, (None, 2.0), (2, 2)),
        (8, 4, (1, 0.5), (1, 0.5)),
        (8, 2, (None, 0.0), (8, 0)),  # one a CPU, on CPUs
        (8, 2, (3, 0.0), (3, 0)),
    ],
)
def test_engines_are_one_a_gpu_or_else_one_a_cpu_unless_asked_for(cpus, gpus, asked, found):
    assert placed(cluster(cpus, gpus), *asked) == (*found, None)


@pytest.mark.parametrize(
    ("gpus", "asked", "found", "remark"),
    [
        (0, (None, 1.0), (8, 0), "asked for 1 GPUs an engine, found no GPU here: training on the"),
        (0, (3, 0.5), (3, 0), "asked for 0.5 GPUs an engine, found no GPU here: training on the"),
        (1, (None, 2.0), (8, 0), "asked for 2 GPUs an engine, found 1 GPUs here: training on the"),
        (2, (5, 1.0), (2, 1), "asked for 5 engines of 1 GPUs, found 2 GPUs: 2"),
        (1, (5, 0.5), (2, 0.5), "asked for 5 engines of 0.5 GPUs, found 1 GPUs: 2"),
    ],
)
def test_more_than_this_machine_has_is_not_given_and_said(gpus, asked, found, remark):
    *given, note = placed(cluster(8, gpus), *asked)
    assert tuple(given) == found
    assert note and note.startswith(remark)


def test_a_cluster_that_may_grow_is_asked_for_all_that_was_asked_for():
    assert placed(cluster(8, 0, local=False), 3, 1.0) == (3, 1, None)
    assert placed(cluster(8, 2, local=False), 5, 1.0) == (5, 1, None)
    assert placed(cluster(8, 0, local=False), None, 1.0) == (1, 1, None)


def fit(gpus: int, share: float) -> int:
    """Engines that Ray can place: a share of a GPU does not lie on two of them."""
    return gpus * int(1 / share + 1e-9) if share < 1 else int(gpus / share)


@pytest.mark.parametrize("gpus", [1, 2, 4])
@pytest.mark.parametrize(
    "asked", [*[(n, None) for n in (None, 1, 2, 4, 8)], *[(None, s) for s in (0.2, 0.25, 0.5, 1.0)]]
)
def test_all_engines_of_a_machine_find_their_gpus(gpus, asked):
    count, share, _ = placed(cluster(8, gpus), *asked)
    assert count <= fit(gpus, share)


@pytest.mark.parametrize(
    ("gpus", "asked"),
    [(2, (3, None)), (3, (4, None)), (2, (None, 0.6)), (2, (3, 0.6)), (3, (None, 0.4))],
)
def test_engines_find_their_gpus_where_shares_do_not_divide_them_evenly(gpus, asked):
    count, share, _ = placed(cluster(8, gpus), *asked)
    assert count <= fit(gpus, share)


# ---- starting them -------------------------------------------------------------------------------


class Ray:
    """Actors that are ready at the n-th look at them, or whose start fails."""

    def __init__(self, looks: list[int], error: RayError | None = None):
        self.looks, self.error, self.clock = looks, error, 0.0
        self.made: list[Any] = []
        self.killed: list[Any] = []
        self.asked_to_quit: list[int] = []
        self.options_of: dict[str, Any] = {}

    def remote(self, actor_class):
        assert actor_class is EngineActor
        return SimpleNamespace(options=self._options)

    def _options(self, **options):
        self.options_of = options
        return SimpleNamespace(remote=self._make)

    def _make(self, plan, threads):
        number = len(self.made)
        ready = SimpleNamespace(remote=lambda: number)
        quit = SimpleNamespace(remote=lambda: self.asked_to_quit.append(number))
        self.made.append(
            SimpleNamespace(number=number, plan=plan, threads=threads, ready=ready, quit=quit)
        )
        return self.made[-1]

    def wait(self, answers, num_returns, timeout):
        assert num_returns == len(answers)
        self.clock += timeout
        found = [n for n in answers if 20.0 * self.looks[n] <= self.clock]
        return found, [n for n in answers if n not in found]

    def get(self, answers, timeout=None):
        if self.error:
            raise self.error

    def kill(self, actor):
        self.killed.append(actor)

    def monotonic(self):
        return self.clock


@pytest.fixture
def fake(monkeypatch):
    def call(*looks, error=None) -> Ray:
        ray = Ray(list(looks), error)
        monkeypatch.setattr(engines, "ray", ray)
        monkeypatch.setattr(engines, "time", ray)
        return ray

    return call


def test_engines_share_the_cpus_and_end_with_the_study(fake):
    for local in (True, False):
        ray, said = fake(0, 0, 0), []
        with started(PLAN, cluster(8, 2, local), 3, 0.5, said.append) as actors:
            assert actors == ray.made
            assert not ray.killed and not said
        assert ray.killed == ray.made and ray.asked_to_quit == [0, 1, 2]
    wanted = {"num_cpus": 2, "num_gpus": 0.5, "max_restarts": -1, "max_task_retries": 2}
    assert wanted.items() <= ray.options_of.items()
    assert all((actor.plan, actor.threads) == (PLAN._asdict(), 2) for actor in ray.made)
    assert Plan(**ray.made[0].plan) == PLAN


@pytest.mark.parametrize(
    ("machines", "count", "cpus"),
    [
        ((8,), 1, 8),
        ((8,), 3, 2),
        ((2, 2), 1, 2),  # not the four that the cluster has
        ((2, 2), 2, 2),
        ((2, 4), 2, 2),
        ((2, 9), 3, 3),
        ((4, 0), 2, 2),
        ((2, 2), 5, 1),  # one has to wait
        ((0,), 1, 1),
        ((), 2, 1),  # a cluster's machines are on their way
    ],
)
def test_engines_have_the_most_cpus_that_all_of_them_find_on_one_machine(machines, count, cpus):
    assert share(machines, count) == cpus


def test_an_engine_has_a_cpu_at_least(fake):
    ray = fake(0, 0, 0)
    with started(PLAN, cluster(2, 0), 3, 0.0, print):
        assert ray.options_of["num_cpus"] == 1


def test_engines_end_with_an_error_too(fake):
    ray = fake(0, 0)
    with pytest.raises(KeyError), started(PLAN, cluster(2, 0, local=False), 2, 0.0, print):
        raise KeyError
    assert ray.killed == ray.made


def test_a_study_begins_without_the_engines_that_are_late(fake, monkeypatch):
    monkeypatch.setattr(engines, "LATE", 60)
    ray, said = fake(9, 4, 2, 99), []
    with started(PLAN, cluster(8, 0, local=False), 4, 0.0, said.append) as actors:
        assert [actor.number for actor in actors] == [2, 1]
        assert ray.clock == 100  # the first one at 40
        assert sorted(actor.number for actor in ray.killed) == [0, 3]
    assert said[1].startswith("1 of 4 engines are ready; each of the others waits for a machine")


def test_a_study_waits_for_its_first_engine(fake):
    ray, said = fake(50, 51), []
    with started(PLAN, cluster(8, 0), 2, 0.0, said.append) as actors:
        assert [actor.number for actor in actors] == [0, 1]
        assert ray.clock == 1020
    assert len(said) == 50


def test_an_engine_that_cannot_start_ends_the_study_in_one_line(fake):
    ray = fake(0, error=ActorDiedError())
    with (
        pytest.raises(ClusterError, match="an engine did not start: ") as error,
        started(PLAN, cluster(8, 0, local=False), 1, 0.0, print),
    ):
        pass
    assert "\n" not in str(error.value)
    assert ray.killed == ray.made


# ---- lanes ---------------------------------------------------------------------------------------


@pytest.fixture
def slot_for_twenty(monkeypatch):
    monkeypatch.setattr(engines, "TRIALS_A_SLOT", 20)


@pytest.mark.parametrize(
    ("trials", "count", "lanes"),
    [(200, 1, 10), (200, 2, 5), (200, 3, 4), (200, 64, 1), (1, 1, 1), (20, 1, 1), (21, 1, 2)],
)
def test_a_search_has_a_slot_for_so_many_trials(trials, count, lanes, slot_for_twenty):
    assert most_lanes(trials, count) == lanes


GIB = 2**30


class Measured:
    """An engine on which a lane costs what it says, by width."""

    def __init__(self, seconds: dict[int, float], size: int = GIB, free: int = 100 * GIB):
        self.seconds, self.size, self.free = seconds, size, free
        self.asked: list[tuple[Any, int]] = []
        self.measure = SimpleNamespace(remote=self._measure)

    def _measure(self, config, width):
        self.asked.append((config, width))
        return Cost(width, self.seconds[width], self.size, self.free)


@pytest.fixture(autouse=True)
def without_ray(monkeypatch):
    monkeypatch.setattr(engines.ray, "get", list)


HALVES = {2**i: 64.0 / 2**i for i in range(12)}


@pytest.mark.parametrize(
    ("seconds", "most", "widths", "lanes"),
    [
        ({1: 8.0, 2: 4.0, 4: 3.9}, 7, [1, 2, 4], 4),  # two lanes for each of the widest pack
        ({1: 8.0, 2: 8.0}, 3, [1, 2], 2),
        ({1: 8.0, 2: 9.0, 4: 2.0}, 7, [1, 2, 4], 7),
        (HALVES, 10, [1, 2, 4, 8], 10),
        (HALVES, 8, [1, 2, 4, 8], 8),
        (HALVES, 7, [1, 2, 4], 7),
        (HALVES, 3, [1, 2], 3),
        (HALVES, 1, [1], 1),
    ],
)
def test_lanes_are_twice_the_best_width_that_is_allowed(seconds, most, widths, lanes):
    actor, config = Measured(seconds), {"lr": 1}
    assert measured_lanes([actor], config, most)[0] == lanes
    assert actor.asked == [(config, width) for width in widths]


@pytest.mark.parametrize(
    ("free", "count", "lanes"),
    [(100, 1, 16), (16, 1, 8), (16, 2, 4), (16, 3, 2), (1, 1, 1), (0, 2, 1)],
)
def test_lanes_take_half_of_the_memory_that_is_free(free, count, lanes):
    actors = [Measured(HALVES, free=free * GIB) for _ in range(count)]
    assert measured_lanes(actors, {}, 16)[0] == lanes


def test_a_lane_that_takes_no_memory_is_no_problem():
    assert measured_lanes([Measured(HALVES, size=0)], {}, 16)[0] == 16


def test_the_slowest_engine_decides_and_all_are_measured_at_once():
    fast, slow = Measured(HALVES), Measured({1: 100.0, 2: 99.0}, size=2 * GIB)
    lanes, why = measured_lanes([fast, slow], {}, 3)
    assert lanes == 2
    assert [width for _, width in fast.asked] == [width for _, width in slow.asked] == [1, 2]
    assert why == "a task takes 100.00 s in packs of 1, 99.00 s in packs of 2; 2048 MiB a lane"


# ---- whose choice it is --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("remembered", "asked", "lanes", "measured"),
    [
        (None, None, 5, True),
        (None, "auto", 5, True),
        (3, "auto", 5, True),
        (3, None, 3, False),
        (3, 7, 7, False),
        (None, 7, 7, False),
    ],
)
def test_lanes_are_asked_for_or_remembered_or_measured(
    remembered, asked, lanes, measured, slot_for_twenty
):
    said, actor = [], Measured(HALVES)
    study = STUDY._replace(lanes=remembered, trials=200)
    assert choose_lanes(study, [actor, actor], asked, said.append) == (
        study._replace(lanes=lanes),
        lanes,
    )
    assert bool(actor.asked) == measured == bool(said)
    if measured:
        assert actor.asked[0] == (study.default(), 1)
        assert said[-1].startswith("5 lanes an engine (at most 5 for 200 trials): a task takes 64")


@pytest.mark.parametrize("asked", [None, "auto", 7])
def test_a_method_that_cannot_be_fused_has_one_lane(asked, monkeypatch):
    monkeypatch.setattr(sequential, "SERIAL", True, raising=False)
    said, actor = [], Measured({})
    assert choose_lanes(STUDY, [actor], asked, said.append) == (STUDY, 1)
    assert said == ["sequential cannot be fused: an engine trains one trial at a time"]
