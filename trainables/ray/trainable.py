"""One configuration as a Ray Tune trial: a step is a task, a report is flat scalars."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray._raylet import setproctitle  # pyright: ignore[reportAttributeAccessIssue]

from trainables.engine.checkpoint import CheckpointError
from trainables.ray.recorder import checkpoint_file
from trainables.ray.trial import Plan, Trial

log = logging.getLogger(__name__)


class TrialActor(tune.Trainable):
    """A Tune trial. Its process is kept for the next trial, with data and traced steps in place.

    The configuration that Tune passes holds ``number`` (of the trial in its study), ``hyper`` (the
    method's configuration), ``plan`` and ``checkpoints`` (a folder). A trial saves itself after
    every task and, wherever it is set up again, goes on from there.
    """

    share: Mapping[str, float] = {"CPU": 1}  # of the cluster, that a trial holds

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        return tune.PlacementGroupFactory([dict(cls.share)])

    def setup(self, config: dict[str, Any]) -> None:
        self.begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.begin(new_config)
        return True

    def begin(self, config: dict[str, Any]) -> None:
        """Make the trial; what goes wrong here is reported by the first step."""
        self.number, self.failure, self.trial = config["number"], None, None
        self.unheard = False  # whether a report on what was restored may have been lost
        self.file = checkpoint_file(config["checkpoints"], self.number)
        try:
            self.trial = Trial(on_device(Plan(**config["plan"])), config["hyper"])
            if self.file.exists():
                self.trial.restore(self.file)
                self.unheard = True
        except CheckpointError as error:
            log.warning("trial %d starts over: %s", self.number, error)
        except Exception as error:
            self.failure = describe(error)

    def step(self) -> dict[str, Any]:
        """Learn one task. A trial that fails or diverges ends with ``failure`` and the reason."""
        if self.trial is None:
            return {"failure": self.failure, "tasks_learned": 0, "done": True}
        # What the dashboard, ps and top show until the step is done. With Ray's own
        # function: Ray has moved the memory that the package setproctitle looks for.
        task = self.trial.tasks_learned + 1
        setproctitle(f"ray::{type(self).__name__} trial {self.number} task {task}")
        unsaved = {}
        try:
            if self.unheard:  # the scheduler judges it by this task before it goes on
                self.unheard = False
            else:
                self.failure = self.trial.learn_next()
                if self.failure is None:
                    self.trial.save(self.file)
        except CheckpointError as error:  # no fault of the trial's
            unsaved = {"unsaved": str(error)}
        except Exception as error:
            self.failure = describe(error)
        report = self.trial.report() | unsaved
        if self.failure is not None:
            return report | {"failure": self.failure, "done": True}
        return report | {"done": self.trial.finished}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        if self.trial is not None:
            self.trial.save(Path(checkpoint_dir) / "trial.safetensors")

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        if self.trial is not None:
            self.trial.restore(Path(checkpoint_dir) / "trial.safetensors")

    def __repr__(self) -> str:
        """Ray reads it once, when the process is made; it then serves trial after trial."""
        return f"trials from {getattr(self, 'number', '?')} on"


def describe(error: Exception) -> str:
    """An exception as one line."""
    return f"{type(error).__name__}: {error}".replace("\n", " ")


def on_device(plan: Plan) -> Plan:
    """The plan on the GPU that Ray gave this process, or on the CPU."""
    return plan._replace(device="cuda") if ray.get_gpu_ids() else plan
