"""A study's settings and its directory, before anything runs. Imports neither Ray nor, by itself,
torch.

A study's directory is self-contained: ``study.yaml`` (settings), ``study.journal`` (Optuna's
trials), ``log.jsonl`` and four Parquet files (the record), ``checkpoints/``, ``tensorboard/``
and, at the end, ``generated/`` and ``best.yaml``.
"""

import contextlib
import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import yaml
from filelock import FileLock, Timeout
from optuna.trial import FixedTrial

import search_spaces
import trainables
from search_spaces._common import trainable_embedder
from search_spaces._tree import Held
from trainables.engine.errors import unknown


class StudyError(Exception):
    """A study that cannot be made, opened or written; the message says what to do."""


class Study(NamedTuple):
    """The settings of a study, all that its results depend on. Written to ``study.yaml``."""

    name: str
    method: str
    benchmark: str = "split_digits"
    scenario: str = "class"
    embedder: str = "identity"
    tasks: int | None = None  # to cut the classes into; the benchmark's own number if None
    attributes: str = "none"  # who is told them
    memory: int | None = None  # examples that a method may store; the method's own number if None
    data_dir: str | None = None  # on the machine that began the study
    seed: int = 0
    trials: int = 200  # in total, over all runs of the study
    sampler: str = "tpe"
    scheduler: str = "asha"
    metric: str = "joint_accuracy"
    protocol: str = "end_of_stream"
    tuning_tasks: int = 3  # of first_k_tasks: how many the search has, and the report has not
    report_on: str | None = None  # of other_stream: a benchmark; the next class order if None
    search_shapes: bool = False
    fixed: dict = {}  # hyperparameters that are held, name -> value  # noqa: RUF012
    batch: int | None = None  # configurations asked together and judged in order (--reproducible)
    lanes: int | None = None  # trials that an engine trains at once; measured if None
    final_seeds: int = 5
    top: int = 3
    references: bool = True  # whether the final phase trains floor and ceiling too

    @property
    def module(self):
        """The method, with an embedder in front of it if that is to be trained."""
        return trainables.load(self.method, self.embedder)

    def space(self) -> Callable[[Any], dict]:
        """The search space, a function of an Optuna trial."""
        return functools.partial(suggest, self)

    def default(self) -> dict[str, Any]:
        """The configuration that is tried first: the space's, with the method's own values where it
        has none."""
        from trainables.engine.method import configure  # imports torch

        shape, hyper = configure(self.module, search_spaces.load(self.method).DEFAULT)
        return self.space()(FixedTrial(shape._asdict() | hyper._asdict()))


def suggest(study: Study, trial: Any) -> dict[str, Any]:
    """One configuration of a study: the method's space, what comes with its options, what is held.

    Args:
        study: settings.
        trial: of Optuna.
    """
    space, trial = search_spaces.load(study.method).space, Held(trial, study.fixed)
    options = {"search_shapes": study.search_shapes}
    if "attributes" in inspect.signature(space).parameters:
        options["attributes"] = study.attributes in ("generator", "both")
    config = space(trial, **options)
    if study.embedder == trainables.TRAINABLE:
        config |= trainable_embedder(trial)
    return config | budget(study) | study.fixed


def budget(study: Study) -> dict[str, int]:
    """What a study holds of its method's memory: nothing where that stores no examples."""
    if study.memory is None or "memory_size" not in study.module.Shape._fields:
        return {}
    return {"memory_size": study.memory}


def check_fixed(study: Study) -> None:
    """Whether what is held are values of the method.

    Raises:
        ValueError: for an unknown name or a value of another kind, in one line.
    """
    from trainables.engine.method import configure  # imports torch

    shape, hyper = configure(study.module, study.fixed)
    own = study.module.Shape()._asdict() | study.module.Hyper()._asdict()
    for name, value in (shape._asdict() | hyper._asdict()).items():
        kind = next(k for k in (bool, str, (int, float)) if isinstance(own[name], k))
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            expected = {bool: "true or false", str: "a name"}.get(kind, "a number")
            raise ValueError(f"expected {expected} for {name}, got {value!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"expected a finite number for {name}, got {value}")


def write(directory: Path, study: Study) -> None:
    """``study.yaml``, whole or not at all."""
    part = directory / ".study.yaml.tmp"
    part.write_text(yaml.safe_dump(study._asdict(), sort_keys=False))
    part.replace(directory / "study.yaml")


def read(directory: Path) -> Study:
    """The settings of the study in a directory.

    Raises:
        StudyError: if there is none, or ``study.yaml`` is not one of ours.
    """
    path = directory / "study.yaml"
    try:
        study = Study(**yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        if inside := compared(directory):
            raise StudyError(
                f"{directory} holds {len(inside)} studies that are compared: name one of them, "
                f"{inside[0]} say"
            ) from None
        found = "a folder of other things" if directory.is_dir() else "no such folder"
        if directory.is_dir() and not any(directory.iterdir()):
            found = "an empty folder"
        raise StudyError(
            f"no study in {directory} ({found} where study.yaml was expected): name the folder "
            "that a search printed when it started"
        ) from None
    except (OSError, yaml.YAMLError, TypeError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise StudyError(f"{path} is not the settings of a study: {reason}") from error
    for field, kind in get_type_hints(Study).items():
        value = getattr(study, field)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            expected = getattr(kind, "__name__", kind)
            raise StudyError(f"{path}: expected {field} of type {expected}, found {value!r}")
    if study.lanes is not None and study.lanes < 1:
        raise StudyError(f"{path}: expected lanes of at least 1, found {study.lanes}")
    if study.method not in search_spaces.names():
        raise StudyError(f"{path}: {unknown('method', study.method, search_spaces.names())}")
    return study


def write_comparison(folder: Path, studies: Mapping[Path, Study]) -> None:
    """The settings of studies that will be compared, in folders of this one.

    Studies that have begun keep the settings that they have written.

    Raises:
        StudyError: if the folder cannot be written.
    """
    try:
        for directory, study in studies.items():
            directory.mkdir(parents=True, exist_ok=True)
            write(directory, study)
        names = [directory.name for directory in studies]
        (folder / "comparison.yaml").write_text(yaml.safe_dump({"studies": names}))
    except OSError as error:
        raise StudyError(f"{folder} cannot be written: {error.strerror}") from error


def compared(folder: Path) -> list[Path]:
    """The folders of the studies that a comparison has, in order; none if this is not one.

    Raises:
        StudyError: if ``comparison.yaml`` is not one of ours.
    """
    path = folder / "comparison.yaml"
    try:
        return [folder / name for name in yaml.safe_load(path.read_text())["studies"]]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, yaml.YAMLError, TypeError, KeyError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise StudyError(f"{path} does not name the studies of a comparison: {reason}") from error


def is_over(directory: Path, study: Study) -> bool:
    """Whether a study has a winner, chosen with the budget that it has now."""
    try:
        best = yaml.safe_load((directory / "best.yaml").read_text())
        seeds = best["comparison"]["winner"]["test_joint_accuracy"]["n"]
        return (best["trials"], seeds) == (study.trials, study.final_seeds)
    except (OSError, yaml.YAMLError, TypeError, KeyError):
        return False


def free(directory: Path) -> Path:
    """The folder itself, or the first of ``-2``, ``-3``, ... that does not exist."""
    number, found = 1, directory
    while found.exists():
        number += 1
        found = directory.with_name(f"{directory.name}-{number}")
    return found


@contextlib.contextmanager
def in_use(directory: Path) -> Iterator[None]:
    """Hold the study for this process.

    Raises:
        StudyError: if the directory cannot be written, or another process holds the study.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / ".lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise StudyError(
            f"another search is running in {directory}, or its ablation: wait for it, or name "
            "another folder"
        ) from None
    except OSError as error:
        raise StudyError(
            f"cannot write to {directory} ({error.strerror}): choose another --study-dir"
        ) from error
    try:
        yield
    finally:
        lock.release()
