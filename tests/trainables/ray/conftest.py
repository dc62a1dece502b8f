"""Engines without Ray."""

import contextlib
import sys

import pytest
from rich.console import Console

from analysis.store import Record
from tests.trainables.ray.fake_engines import FakeEngine, FakeRay
from tests.trainables.ray.test_trial import plan
from trainables.ray import engine, final, reruns
from trainables.ray.engine import EngineActor
from trainables.ray.engines import Engines
from trainables.ray.settings import Study
from trainables.ray.study import Session
from trainables.ray.trial import engine_of


@pytest.fixture
def titles(monkeypatch) -> list[str]:
    """No Ray; what the process would be called, from first to last."""
    found = []
    monkeypatch.setattr(engine.ray, "get_gpu_ids", list)
    monkeypatch.setattr(engine, "setproctitle", found.append)
    return found


class Mortal(EngineActor):
    """An engine whose thread can be ended, as if its process were killed."""

    def _work(self, threads):
        with contextlib.suppress(SystemExit):
            super()._work(threads)


@pytest.fixture
def start(titles):
    """Start an engine; its thread ends with the test."""
    started = []

    def call(own=None, threads=1) -> EngineActor:
        started.append(Mortal((own or plan())._asdict(), threads))
        return started[-1]

    yield call
    for actor in started:
        actor.orders.put(sys.exit)


@pytest.fixture
def new_process():
    """Forget the engines of this process: lanes of actors that were thrown away stay in them."""
    engine_of.cache_clear()
    yield engine_of.cache_clear
    engine_of.cache_clear()


@pytest.fixture
def fake_ray(monkeypatch) -> FakeRay:
    ray = FakeRay()
    monkeypatch.setattr(final, "ray", ray)
    monkeypatch.setattr(reruns, "ray", ray)
    return ray


@pytest.fixture
def session(tmp_path):
    """Make a session of two engines that answer what they are told to."""
    study = Study("s", "lgm_acgan", "gaussian", final_seeds=3, top=2)
    with Record(tmp_path, study.name) as record:

        def call(answer, study=study):
            engines = Engines([FakeEngine(answer), FakeEngine(answer)], 2)
            return Session(study, tmp_path, record, engines, Console(quiet=True), "quiet")

        yield call
