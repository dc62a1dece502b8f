"""How Tune drives trials that have no process of their own: seats in engines.

Tune asks a resource manager for the means to run a trial and makes an actor from them, one process
a trial. Here the means are seats: an engine has as many as it trains lanes, and what Tune takes for
a trial's actor is a handle that passes its calls on to the engine. Searcher, scheduler and
callbacks see ordinary Tune trials. What a process a trial would cost: docs/architecture.md.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import ray
from ray.air.execution import ResourceManager, ResourceRequest
from ray.air.execution.resources import AcquiredResources
from ray.tune.execution import tune_controller

from trainables.ray.engines import Engines

DEFAULT_MANAGER = "PlacementGroupResourceManager"


class Seats(ResourceManager):
    """Gives each trial a seat in the engine that has most of them free."""

    def __init__(self, engines: Engines):
        self._engines = engines
        self._requested = Counter()
        self._taken = Counter()  # by index of the engine

    def request_resources(self, resource_request: ResourceRequest) -> None:
        self._requested[resource_request] += 1

    def cancel_resource_request(self, resource_request: ResourceRequest) -> None:
        self._requested[resource_request] -= 1

    def has_resources_ready(self, resource_request: ResourceRequest) -> bool:
        free = any(self._taken[i] < self._engines.lanes for i in range(len(self._engines.actors)))
        return free and self._requested[resource_request] > 0

    def acquire_resources(self, resource_request: ResourceRequest) -> "Seat | None":
        if not self.has_resources_ready(resource_request):
            return None
        self._requested[resource_request] -= 1
        index = min(range(len(self._engines.actors)), key=lambda i: self._taken[i])
        self._taken[index] += 1
        return Seat(resource_request, index, self._engines.actors[index])

    def free_resources(self, acquired_resource: AcquiredResources) -> None:
        assert isinstance(acquired_resource, Seat)
        self._taken[acquired_resource.index] -= 1

    def clear(self) -> None:
        self._requested.clear()
        self._taken.clear()


@dataclass
class Seat(AcquiredResources):
    """What Tune makes a trial's actor from."""

    resource_request: ResourceRequest
    index: int
    engine: Any

    def annotate_remote_entities(self, entities) -> list["Seat"]:
        return [self]

    def remote(self, config: dict[str, Any], **_) -> "TrialHandle":
        """The "actor" of a trial, as Tune makes one from a class."""
        return TrialHandle(self.engine, config)


class Method(NamedTuple):
    remote: Callable[..., Any]


class TrialHandle:
    """What Tune takes for a trial's actor. Every call returns a Ray object reference."""

    def __init__(self, engine: Any, config: dict[str, Any]):
        name = f"trial {config['number']}"  # what the dashboard and `ray list tasks` show
        learn = engine.learn.options(name=name)
        self.train = Method(lambda: learn.remote(config))
        self.stop = Method(lambda: nothing(engine.leave.remote(config["number"])))
        self.get_auto_filled_metrics = Method(lambda **_: nothing())
        self.__ray_ready__ = Method(engine.ready.remote)


def nothing(*_) -> ray.ObjectRef:
    """The answer to a call that nobody has to wait for."""
    return ray.put({})


@contextlib.contextmanager
def seated(engines: Engines) -> Iterator[None]:
    """Let Tune seat its trials in these engines.

    ``TuneController`` takes a resource manager, but ``Tuner`` has no argument to pass it on.
    """
    theirs = getattr(tune_controller, DEFAULT_MANAGER)
    setattr(tune_controller, DEFAULT_MANAGER, lambda: Seats(engines))
    try:
        yield
    finally:
        setattr(tune_controller, DEFAULT_MANAGER, theirs)
