"""The record's schema: every column of the four Parquet files, in one place.

Each column's description travels in the metadata of its field, and ``SCHEMA_VERSION`` in that of
each file. A change of a column's name, type or meaning raises the version.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from analysis.log import RecordError

SCHEMA_VERSION = 2  # 2: quality.parquet
VERSION_KEY = b"lgm_search.schema_version"
FIRST_FINAL = 1_000_000  # trial_id of the first trial of the final phase
FIRST_ABLATION = 2_000_000  # and of the ablation
FIRST_CHOICE = 3_000_000  # and of the choice, where another stream is reported

ROLES = ("search", "final", "ablation", "choice")
STATUSES = ("completed", "stopped", "failed")
SPLITS = ("validation", "test")

INT, FLOAT, TEXT = pa.int64(), pa.float64(), pa.string()
TIME = pa.timestamp("us", tz="UTC")


class Column(NamedTuple):
    name: str
    type: pa.DataType
    description: str
    required: bool = False  # never null
    derived: bool = False  # computed from the accuracy matrix, not reported
    choices: tuple[str, ...] = ()  # the only values allowed, if any


TRIALS = (
    Column("study", TEXT, "Name of the study.", required=True),
    Column(
        "trial_id",
        INT,
        "Number of the trial in the study: from 0 in the search, from 1,000,000 in the final"
        " phase, from 2,000,000 in the ablation, from 3,000,000 in the choice.",
        required=True,
    ),
    Column(
        "role",
        TEXT,
        "'search'; 'final': trained again on a fresh seed after the search; 'ablation': the winner,"
        " or the winner with one part taken out, on a further fresh seed; 'choice': a finalist on"
        " a fresh seed, where the winner is chosen on another stream than the final phase's.",
        required=True,
        choices=ROLES,
    ),
    Column(
        "label",
        TEXT,
        "What a final trial stands for, e.g. 'default', or an ablation's change of the winner, e.g."
        " 'divergence = 0'; null in the search.",
    ),
    Column("method", TEXT, "Name of the method, e.g. 'lgm_acgan'.", required=True),
    Column("benchmark", TEXT, "Name of the benchmark, e.g. 'split_digits'.", required=True),
    Column("scenario", TEXT, "Which logits compete, e.g. 'class'.", required=True),
    Column("protocol", TEXT, "What the search may see, e.g. 'end_of_stream'.", required=True),
    Column("seed", INT, "The trial's own seed; with `config` it replays the trial.", required=True),
    Column(
        "status",
        TEXT,
        "'completed' the stream, 'stopped' early by the scheduler, or 'failed'.",
        required=True,
        choices=STATUSES,
    ),
    Column("reason", TEXT, "Why the trial was stopped or failed; null if completed."),
    Column("score", FLOAT, "What the search optimises; null where the trial ended without one."),
    Column("metric", TEXT, "Name of the metric that `score` is."),
    Column("tasks_learned", INT, "Tasks learned and evaluated, k.", required=True),
    Column("seconds", FLOAT, "Wall-clock seconds of training, over all tasks."),
    Column("memory_bytes", INT, "Bytes that the method carries from one task to the next."),
    Column(
        "joint_accuracy",
        FLOAT,
        "Share of the validation examples of the k tasks classified correctly after task k, a"
        " fraction. Null if k = 0.",
        derived=True,
    ),
    Column(
        "average_accuracy",
        FLOAT,
        "Mean validation accuracy over the k tasks after task k, a fraction. Null if k = 0.",
        derived=True,
    ),
    Column(
        "forgetting",
        FLOAT,
        "Mean drop of past tasks from their best validation accuracy (Chaudhry), a fraction; lower"
        " is better. Null if k < 2.",
        derived=True,
    ),
    Column(
        "learning_accuracy",
        FLOAT,
        "Mean validation accuracy on each task just after it was learned, a fraction. Null if"
        " k = 0.",
        derived=True,
    ),
    Column(
        "backward_transfer",
        FLOAT,
        "Mean change of past tasks' validation accuracy since they were learned (GEM), a fraction;"
        " higher is better. Null if k < 2.",
        derived=True,
    ),
    Column("lanes", INT, "Trials trained side by side in this trial's pack."),
    Column("versions", TEXT, "JSON object: version of lgm-search, python, torch, ray, ..."),
    Column("commit", TEXT, "Git commit of lgm-search; null outside a checkout."),
    Column("embedder", TEXT, "Fixed embedder in front of the method, e.g. 'identity'."),
    Column("attributes", TEXT, "Who is told the class attributes: 'none', 'generator', ..."),
    Column("class_order_seed", INT, "Seed of the order in which classes appear."),
    Column("started", TIME, "When training began (UTC)."),
    Column("finished", TIME, "When the trial ended (UTC)."),
)

ACCURACY = (
    Column("trial_id", INT, "The trial, as in trials.parquet.", required=True),
    Column("seed", INT, "The trial's own seed.", required=True),
    Column("split", TEXT, "'validation', or 'test' (final trials only).", required=True),
    Column("after_task", INT, "i of A[i, j]: the task just learned, from 0.", required=True),
    Column("on_task", INT, "j of A[i, j]: the task evaluated, 0 <= j <= i.", required=True),
    Column("accuracy", FLOAT, "A[i, j], a fraction in [0, 1].", required=True),
    Column("examples", INT, "n_j, how many examples of task j were evaluated.", required=True),
)

LOSSES = (
    Column("trial_id", INT, "The trial, as in trials.parquet.", required=True),
    Column("task", INT, "The task being learned, from 0.", required=True),
    Column("term", TEXT, "Name of the loss term.", required=True),
    Column(
        "value",
        FLOAT,
        "Mean of the term over the task's steps; NaN or infinite where the trial diverged.",
        required=True,
    ),
)

QUALITY = (
    Column("trial_id", INT, "The trial, as in trials.parquet.", required=True),
    Column("seed", INT, "The trial's own seed.", required=True),
    Column("split", TEXT, "'validation', or 'test' (final trials only).", required=True),
    Column("after_task", INT, "The task just learned, from 0.", required=True),
    Column("on_task", INT, "The task measured, from 0 to `after_task`.", required=True),
    Column(
        "measure",
        TEXT,
        "'cas': accuracy on real examples of a classifier trained on generated ones, a fraction;"
        " 'nearest_distance': distance of generated examples to the nearest training example,"
        " divided by that of real new ones (near 0: copies); 'reconstruction_error': mean squared"
        " error, in squared units of the input; 'explained_variance': share of the inputs' variance"
        " that reconstructions keep. Accuracies among the task's own classes: 'task_accuracy' after"
        " `after_task`, 'zero_shot_accuracy' just before `on_task` was learned,"
        " 'untrained_accuracy' before any training, 'learning_curve_area' on average over the time"
        " before and after each of the first 10 batches of `on_task`. Of the time after `on_task`,"
        " among all classes,"
        " where the classifier is told attributes: 'seen_accuracy' on classes learned,"
        " 'unseen_accuracy' on those to come (NaN where there are none), their 'harmonic_mean',"
        " 'area_under_seen_unseen'.",
        required=True,
    ),
    Column(
        "value",
        FLOAT,
        "What was measured; NaN or infinite where a method made what is not finite.",
        required=True,
    ),
)

TABLES = {"trials": TRIALS, "accuracy": ACCURACY, "losses": LOSSES, "quality": QUALITY}


def table(columns: Sequence[Column], values: Mapping[str, Any]) -> pa.Table:
    """A table of these columns, with descriptions and version in its metadata.

    Args:
        columns: what the table consists of, in order.
        values: name -> list or one-dimensional array; all equally long; None is null.
    """
    fields = [
        pa.field(c.name, c.type, not c.required, {b"description": c.description.encode()})
        for c in columns
    ]
    arrays = [pa.array(values[c.name], c.type) for c in columns]
    version = {VERSION_KEY: str(SCHEMA_VERSION).encode()}
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, version))


def config_columns(configs: Sequence[Mapping[str, Any]]) -> dict[Column, list]:
    """The columns ``config.<name>`` of several configurations, sorted by name.

    Args:
        configs: name -> value; a conditional parameter is absent where it does not apply.

    Returns:
        Column -> one value a configuration, None where the parameter is absent. The type is the
        narrowest of bool, int and float that holds all values of a parameter; int beside float is
        float. Text, and every other mixture, is text, in which what is not text stands as JSON.
    """
    columns = {}
    for name in sorted({name for config in configs for name in config}):
        kind, values = _narrowest([config.get(name) for config in configs])
        about = f"Hyperparameter `{name}`; null where the configuration does not have it."
        columns[Column(f"config.{name}", kind, about)] = values
    return columns


def _narrowest(values: list) -> tuple[pa.DataType, list]:
    kinds = {type(value) for value in values if value is not None}
    fits = all(-(2**63) <= value < 2**63 for value in values if isinstance(value, int))
    if kinds == {bool}:
        return pa.bool_(), values
    if kinds == {int} and fits:
        return INT, values
    if kinds and kinds <= {int, float} and fits:
        return FLOAT, [None if v is None else float(v) for v in values]
    as_they_are = (str, type(None))
    return TEXT, [v if isinstance(v, as_they_are) else json.dumps(v) for v in values]


def check_version(path: Path, version: int) -> None:
    """Raises RecordError if a file is of a newer schema than this one."""
    if version > SCHEMA_VERSION:
        raise RecordError(
            f"{path} was written by a newer lgm-search (schema {version}, this one reads up to"
            f" {SCHEMA_VERSION}): upgrade lgm-search"
        )
