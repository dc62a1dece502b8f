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


def best(directory: Path | str) -> dict[str, Any]:
    """What ``best.yaml`` says: the winner of a study, its configuration, how it compares.

    Raises:
        RecordError: if the study has no winner yet, or the file is damaged.
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
    """
    rows = accuracy[(accuracy.trial_id == trial_id) & (accuracy.split == split)]
    if rows.empty:
        raise ValueError(f"trial {trial_id} has no accuracy on the {split} split")
    tasks = rows.after_task.max() + 1
    a, examples = np.full((tasks, tasks), np.nan), np.zeros(tasks, dtype=np.int64)
    a[rows.after_task, rows.on_task] = rows.accuracy
    examples[rows.on_task] = rows.examples
    return a, examples


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
    return table


def _version(table: pa.Table) -> int:
    return int((table.schema.metadata or {})[schema.VERSION_KEY])
