"""Studies made by hand, for tests of what is computed from them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import schema
from analysis.reading import Study

ALIKE = {
    "study": "s", "role": "search", "method": "ewc", "benchmark": "gaussian", "scenario": "class",
    "protocol": "other_stream", "seed": 7, "status": "completed", "tasks_learned": 3,
}  # fmt: skip
SETTINGS = {
    "name": "s", "method": "ewc", "benchmark": "gaussian", "sampler": "tpe", "scheduler": "asha",
    "metric": "joint_accuracy", "protocol": "other_stream", "seed": 0, "trials": 100,
}  # fmt: skip


def study(
    trials: Sequence[Mapping[str, Any]] = (),
    matrices: Mapping[int, Sequence[Sequence[float]]] | None = None,
    best: dict | None = None,
    **settings,
) -> Study:
    """A study of these trials; what a trial does not say of itself is as in ``ALIKE``.

    Args:
        trials: columns of trials.parquet; a configuration is under ``config``.
        matrices: trial_id -> rows of its accuracy matrix on validation data.
        best: best.yaml.
        settings: of study.yaml.
    """
    rows = [{"trial_id": n, "score": np.nan} | ALIKE | dict(t) for n, t in enumerate(trials)]
    configs = schema.config_columns([row.pop("config", {}) for row in rows])
    values = {c.name: [row.get(c.name) for row in rows] for c in schema.TRIALS}
    values |= {column.name: cells for column, cells in configs.items()}
    cells = [
        (n, 7, "validation", i, j, float(a), 10)
        for n, matrix in (matrices or {}).items()
        for i, row in enumerate(matrix)
        for j, a in enumerate(row[: i + 1])
    ]
    accuracy = pd.DataFrame(cells, columns=[c.name for c in schema.ACCURACY])
    empty = [
        schema.table(columns, {c.name: [] for c in columns}).to_pandas()
        for columns in (schema.LOSSES, schema.QUALITY)
    ]
    table = schema.table([*schema.TRIALS, *configs], values).to_pandas()
    return Study(Path("runs/s"), "s", SETTINGS | settings, best, table, accuracy, *empty)
