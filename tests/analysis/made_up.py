"""A made-up study of any size, written at once: what the report and its figures are tried on."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import yaml

from analysis import schema
from search_spaces._tree import Answers
from trainables.ray import settings
from trainables.ray.searcher import at
from trainables.ray.settings import Study

START = datetime(2026, 1, 1, tzinfo=UTC)
SEEDS = range(100, 105)
TERMS = ("reconstruction", "divergence", "classifier")


def study(directory: Path, trials: int = 40, tasks: int = 3, winner: bool = True, **options):
    """Write ``study.yaml``, the four Parquet files and, with a winner, ``best.yaml``.

    A trial's score falls with the distance of ``vae_lr`` from 1e-3 and rises with
    ``classifier_rehearsal``; a third is stopped after two tasks, and one in twenty fails.

    Args:
        directory: of the study; made if it does not exist.
        trials: of the search.
        tasks: of the stream, at least 2.
        winner: whether the final phase has been.
        options: other settings of ``Study``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    named = {"name": directory.name, "method": "lgm_vae", "benchmark": "split_digits"}
    about = Study(**named | {"trials": trials} | options)
    settings.write(directory, about)
    rng = np.random.default_rng(about.seed)
    space = about.space()
    configs = [space(Answers(lambda _, range_: at(range_, rng.random()))) for _ in range(trials)]
    status = np.where(rng.random(trials) < 1 / 3, "stopped", "completed").astype(object)
    status[rng.random(trials) < 0.05] = "failed"
    status[:2] = "completed"
    learned = np.where(status == "completed", tasks, np.where(status == "stopped", 2, 0))
    columns = {
        "role": np.array(["search"] * trials, dtype=object),
        "label": np.array([None] * trials, dtype=object),
        "seed": rng.integers(2**62, size=trials),
        "status": status,
        "learned": learned,
        "skill": np.array([skill(config) for config in configs]) + rng.normal(0, 0.02, trials),
        "trial_id": np.arange(trials),
    }
    if winner:
        labels = ("trial 1", "default", "sequential", "joint")
        own = [(label, seed) for label in labels for seed in SEEDS]
        levels = {"trial 1": 0.8, "default": 0.7, "sequential": 0.2, "joint": 0.95}
        noise = rng.normal(0, 0.01, len(own))
        more = {
            "role": ["final"] * len(own),
            "label": [label for label, _ in own],
            "seed": [seed for _, seed in own],
            "status": ["completed"] * len(own),
            "learned": [tasks] * len(own),
            "skill": np.array([levels[label] for label, _ in own]) + noise,
            "trial_id": schema.FIRST_FINAL + np.arange(len(own)),
        }
        columns = {key: np.concatenate([columns[key], more[key]]) for key in columns}
        configs += [configs[1] if label == "trial 1" else {} for label, _ in own]
    rows, cells = _accuracy(columns, rng)
    _write(directory, "accuracy", schema.ACCURACY, cells)
    _write(directory, "losses", schema.LOSSES, _losses(columns, rng))
    _write(directory, "quality", schema.QUALITY, {c.name: [] for c in schema.QUALITY})
    of_trials = {column.name: [None] * len(configs) for column in schema.TRIALS} | rows
    fixed = about._asdict() | {"study": about.name, "metric": about.metric}
    for key in ("study", "method", "benchmark", "scenario", "protocol", "metric"):
        of_trials[key] = [fixed[key]] * len(configs)
    extra = schema.config_columns(configs)
    _write(
        directory,
        "trials",
        [*schema.TRIALS, *extra],
        of_trials | {column.name: values for column, values in extra.items()},
    )
    if winner:
        tested = {str(label): [] for label in columns["label"] if label}
        for label, level in zip(columns["label"], columns["skill"], strict=True):
            if label:
                tested[str(label)].append(float(level))
        (directory / "best.yaml").write_text(
            yaml.safe_dump(_best(about, configs[1], tested), sort_keys=False)
        )


def skill(config) -> float:
    """What a configuration is worth, a fraction."""
    far = abs(np.log10(config["vae_lr"]) + 3)
    return float(np.clip(0.5 + 0.3 * np.tanh(config["classifier_rehearsal"]) - 0.2 * far, 0.02, 1))


def _accuracy(columns, rng):
    learned, level = columns["learned"].astype(int), np.clip(columns["skill"], 0.02, 0.98)
    count, tasks = len(learned), int(max(learned))
    after, on = np.tril_indices(tasks)
    a = 1 - (1 - level[:, None]) * (after - on + 1) / tasks + rng.normal(0, 0.01, (count, len(on)))
    a = np.clip(a, 0, 1)
    final = columns["role"] == "final"
    parts = []
    for split, mask in (
        ("validation", after < learned[:, None]),
        ("test", final[:, None] & (after == tasks - 1)),
    ):
        trial, cell = np.nonzero(mask)
        parts.append((trial, cell, [split] * len(trial)))
    trial, cell = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    cells = {
        "trial_id": columns["trial_id"][trial],
        "seed": columns["seed"][trial].astype(np.int64),
        "split": [name for part in parts for name in part[2]],
        "after_task": after[cell],
        "on_task": on[cell],
        "accuracy": a[trial, cell],
        "examples": np.full(len(trial), 100),
    }
    last = np.where(after == tasks - 1, a, np.nan)
    ended = learned == tasks
    average = np.where(ended, np.nanmean(last, 1), np.nan)
    begun = START + np.arange(count) * timedelta(seconds=3)
    reason = {"failed": "diverged: classifier = nan", "stopped": None, "completed": None}
    rows = {
        "trial_id": columns["trial_id"],
        "role": columns["role"],
        "label": columns["label"],
        "seed": columns["seed"].astype(np.int64),
        "status": columns["status"],
        "reason": [
            f"stopped after task 2: {average:.3f} < cutoff 0.600 (9 of 12)"
            if status == "stopped"
            else reason[status]
            for status, average in zip(columns["status"], level, strict=True)
        ],
        "score": np.where(ended, average, np.nan),
        "tasks_learned": learned,
        "seconds": 2.0 * learned + rng.random(count),
        "memory_bytes": np.full(count, 200_000),
        "joint_accuracy": average,
        "average_accuracy": average,
        "forgetting": np.where(ended, 1 - level, np.nan),
        "lanes": np.full(count, 4),
        "class_order_seed": np.zeros(count, dtype=int),
        "started": begun,
        "finished": begun + timedelta(seconds=9),
    }
    return rows, cells


def _losses(columns, rng):
    learned = columns["learned"].astype(int)
    each = np.repeat(columns["trial_id"], learned)
    task = np.concatenate([np.arange(n) for n in learned])
    return {
        "trial_id": np.tile(each, len(TERMS)),
        "task": np.tile(task, len(TERMS)),
        "term": np.repeat(np.array(TERMS, dtype=object), len(each)),
        "value": rng.gamma(2.0, 0.2, len(each) * len(TERMS)),
    }


def _best(about: Study, config: dict, tested: dict) -> dict:
    def interval(values):
        half = 2.776 * float(np.std(values, ddof=1)) / len(values) ** 0.5
        mean = float(np.mean(values))
        return {"mean": mean, "low": mean - half, "high": mean + half, "n": len(values)}

    def entry(label):
        values = tested[label]
        return {
            "method": label if label in ("sequential", "joint") else about.method,
            "trial": 1 if label == "trial 1" else None,
            "config": config,
            "test_joint_accuracy": interval(values),
            "per_seed_test_joint_accuracy": dict(zip(SEEDS, values, strict=True)),
            f"validation_{about.metric}": interval([value + 0.01 for value in values]),
        }

    gain = [a - b for a, b in zip(tested["trial 1"], tested["default"], strict=True)]
    compared = {"winner": "trial 1"} | {n: n for n in ("default", "sequential", "joint")}
    return {
        "study": about.name,
        "method": about.method,
        "benchmark": about.benchmark,
        "scenario": about.scenario,
        "protocol": about.protocol,
        "reported_on": {"benchmark": about.benchmark, "class_order_seed": 0, "tasks": [0, 2]},
        "metric": about.metric,
        "trials": about.trials,
        "trial": 1,
        "config": config,
        "test_opened": 1,
        "judged_by": "test_joint_accuracy",
        "gain_over_default": interval(gain),
        "comparison": {name: entry(label) for name, label in compared.items()},
        "candidates": {
            label: interval([value + 0.01 for value in tested[label]])
            for label in ("trial 1", "default")
        },
        "versions": {"lgm-search": "0.1.0"},
        "commit": "0" * 40,
        "written": "2026-01-01T00:00:00+00:00",
    }


def _write(directory: Path, name: str, columns, values) -> None:
    pq.write_table(schema.table(columns, values), directory / f"{name}.parquet")
