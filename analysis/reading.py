"""What a study's folder says: its four tables, its winner, and the accuracy matrix of a trial."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from analysis import schema
from analysis.log import RecordError


class Tables(NamedTuple):
    trials: pd.DataFrame
    accuracy: pd.DataFrame
    losses: pd.DataFrame
    quality: pd.DataFrame


def read(directory: Path | str) -> Tables:
    """The four tables of a study, also while it runs.

    A study of schema 1, when nothing was measured of generators, has no quality.parquet: that
    table is empty then.

    Raises:
        RecordError: if a file is missing, damaged, or written by a newer lgm-search.
    """
    # Trials first: each is written after its accuracies.
    tables = {name: _read(Path(directory), name) for name in schema.TABLES}
    return Tables(**{name: table.to_pandas() for name, table in tables.items()})


class Study(NamedTuple):
    """A study as its folder has it: the settings, the winner if there is one yet, the record."""

    directory: Path
    name: str
    settings: dict[str, Any]  # study.yaml; older studies lack some
    best: dict[str, Any] | None  # best.yaml; None while there is no winner
    trials: pd.DataFrame  # columns as in ``schema.TRIALS``, and ``config.<name>``
    accuracy: pd.DataFrame  # ``schema.ACCURACY``
    losses: pd.DataFrame  # ``schema.LOSSES``
    quality: pd.DataFrame  # ``schema.QUALITY``


def load(directory: Path | str) -> Study:
    """A study from its folder, also while it runs.

    Args:
        directory: what a search printed when it started, e.g. ``runs/lgm_vae-split_digits``.

    Raises:
        RecordError: in one line, if there is no such study, its settings or its record cannot be
            read, or it was written by a newer lgm-search.

    Example:
        >>> study = load("runs/lgm_vae-split_digits")
        >>> study.trials.query("role == 'search'").status.value_counts().to_dict()
        {'completed': 24, 'stopped': 13, 'failed': 3}
        >>> study.accuracy.columns.tolist()
        ['trial_id', 'seed', 'split', 'after_task', 'on_task', 'accuracy', 'examples']
    """
    directory = Path(directory)
    settings = _settings(directory)
    tables = read(directory)
    winner = best(directory) if (directory / "best.yaml").exists() else None
    name = str(settings.get("name", directory.name))
    return Study(directory, name, settings, winner, *tables)


def best(directory: Path | str) -> dict[str, Any]:
    """What ``best.yaml`` says: the winner of a study, its configuration, how it compares.

    Raises:
        RecordError: if the study has no winner yet, or the file is damaged.

    Example:
        >>> best("runs/lgm_vae-split_digits")["judged_by"]
        'test_joint_accuracy'
    """
    path = Path(directory) / "best.yaml"
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordError(
            f"{directory} has no winner yet (no best.yaml): bring the study to its end with"
            f" python run_search.py --resume {directory}"
        ) from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecordError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict) or not {"trial", "config"} <= found.keys():
        raise RecordError(
            f"{path} names no winner: --resume {directory} --trials N with a larger N writes it"
            " anew"
        )
    return found


def label_of_winner(best: Mapping[str, Any]) -> str:
    """What the winner is called among the trials of the final phase: "default", or "trial 17".

    Args:
        best: as ``best`` reads it.

    Example:
        >>> label_of_winner({"trial": 17})
        'trial 17'
    """
    return "default" if best["trial"] is None else f"trial {best['trial']}"


def matrix(
    accuracy: pd.DataFrame, trial_id: int, split: str = "validation"
) -> tuple[np.ndarray, np.ndarray]:
    """The accuracy matrix of one trial, as ``trainables.engine.metrics`` takes it.

    Args:
        accuracy: the table of ``read``.
        trial_id: the trial.
        split: "validation" or "test".

    Returns:
        ``(k, k)`` fractions, NaN where nothing was measured, and ``(k,)`` examples of each task,
        for the k tasks that the trial learned.

    Raises:
        ValueError: if the table has no such row.

    Example:
        >>> a, examples = matrix(study.accuracy, trial_id=0)
        >>> a.shape, examples.tolist()
        ((3, 3), [100, 100, 100])
    """
    rows = accuracy[(accuracy.trial_id == trial_id) & (accuracy.split == split)]
    if rows.empty:
        raise ValueError(f"trial {trial_id} has no accuracy on the {split} split")
    tasks = rows.after_task.max() + 1
    a, examples = np.full((tasks, tasks), np.nan), np.zeros(tasks, dtype=np.int64)
    a[rows.after_task, rows.on_task] = rows.accuracy
    examples[rows.on_task] = rows.examples
    return a, examples


def _settings(directory: Path) -> dict[str, Any]:
    path = directory / "study.yaml"
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        reason = "the studies of a comparison are in folders of it: name one of them"
        if not (directory / "comparison.yaml").exists():
            reason = "name the folder that a search printed when it started"
        raise RecordError(f"no study in {directory} (no study.yaml): {reason}") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecordError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise RecordError(f"{path} is not the settings of a study")
    return settings


def _read(directory: Path, name: str) -> pa.Table:
    path = directory / f"{name}.parquet"
    if name == "quality" and not path.exists() and _version(_read(directory, "trials")) < 2:
        return schema.table(schema.QUALITY, {column.name: [] for column in schema.QUALITY})
    try:
        table = pq.ParquetFile(path).read()
        schema.check_version(path, _version(table))
    except FileNotFoundError:
        raise RecordError(f"no record in {directory}: {path.name} is missing") from None
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise RecordError(
            f"{path} cannot be read as a record ({str(error).splitlines()[0]}): --resume"
            f" {directory} builds it anew from its log"
        ) from error
    return _completed(path, table)


def _completed(path: Path, table: pa.Table) -> pa.Table:
    """The table with a null column for each that its schema did not have yet."""
    for column in schema.TABLES[path.stem]:
        if column.name not in table.column_names:
            if column.required:
                raise RecordError(f"{path} is no record of a study: it has no {column.name}")
            field = pa.field(column.name, column.type)
            table = table.append_column(field, pa.nulls(len(table), column.type))
    return table


def _version(table: pa.Table) -> int:
    return int((table.schema.metadata or {})[schema.VERSION_KEY])
