"""A study's method tuned task by task, as FACIL does it, beside what the search has found.

Its walks take the fresh seeds of the final phase, so that the winner's and the default's scores on
them are in the record already; nothing but the walks is trained, in this process.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from analysis.facil import Found
from analysis.log import RecordError, writing
from analysis.reading import best, label_of_winner, read
from trainables.engine import facil, metrics
from trainables.engine.method import configure
from trainables.ray.final import seeds_of
from trainables.ray.settings import Study, StudyError
from trainables.ray.study import report_plan
from trainables.ray.trial import engine_of, stream_of

COEFFICIENTS = {"icarl": "distillation"}  # of the others that trade at all: the method's own name
START = 100  # times the default's coefficient


def coefficient_of(study: Study) -> str:
    """The hyperparameter that trades plasticity for stability.

    Raises:
        StudyError: if the method has none.
    """
    name, fields = COEFFICIENTS.get(study.method, study.method), study.module.Hyper._fields
    if name not in fields or "lr" not in fields:
        raise StudyError(
            f"{study.method} has no single coefficient that trades plasticity for stability: "
            "FACIL's way is for ewc, icarl, lwf, lwm, mas, rwalk and si"
        )
    return name


def run(study: Study, directory: Path, told: Callable[[int], Any]) -> Found:
    """Walk the stream that the study reports, once a fresh seed of its final phase.

    Writes what was chosen into ``facil.yaml``.

    Args:
        study, directory: a study that has ended.
        told: called with the number of walks that are done.

    Raises:
        RecordError: if the study has no winner yet, or the final phase lacks a seed.
        StudyError: if the method has no such coefficient, or the data cannot be read.
    """
    name, found = coefficient_of(study), best(directory)
    if study.metric not in metrics.SUMMARY:
        raise StudyError(f"FACIL's way is judged by accuracy, this study by {study.metric}")
    trials = read(directory).trials
    final = trials[trials.role == "final"].set_index(["label", "seed"]).score.fillna(0.0)
    seeds, labels = seeds_of(study), {"winner": label_of_winner(found), "default": "default"}
    try:
        scores = {who: [float(final[own, s]) for s in seeds] for who, own in labels.items()}
        stream = stream_of(report_plan(study))
    except KeyError:
        raise RecordError(
            f"{directory} lacks reruns of the final phase: bring the study to its end with "
            f"python run_search.py --resume {directory}"
        ) from None
    except ValueError as error:
        raise StudyError(str(error)) from error
    shape, hyper = configure(study.module, study.default())
    engine, start = engine_of(report_plan(study), shape), START * getattr(hyper, name)
    walks = []
    for seed in seeds:
        walks.append(facil.walk(engine, stream, hyper, name, start, seed))
        told(len(walks))
    examples = [len(task.validation.y) for task in stream.tasks]
    scores["FACIL"] = [
        0.0 if one.diverged else metrics.summary(one.accuracy, examples)[study.metric]
        for one in walks
    ]
    searched = int(trials[trials.role == "search"].tasks_learned.sum())
    rows = [
        {
            "seed": seed,
            study.metric: score,
            "lr": one.rates,
            name: one.coefficients,
            "attempts": one.attempts,
            "diverged": one.diverged,
        }
        for seed, score, one in zip(seeds, scores["FACIL"], walks, strict=True)
    ]
    with writing(directory / "facil.yaml"):
        (directory / "facil.yaml").write_text(yaml.safe_dump(rows, sort_keys=False))
    return Found(
        study.method,
        study.metric,
        scores,
        name,
        [one.rates for one in walks],
        [one.coefficients for one in walks],
        [one.attempts for one in walks],
        searched,
    )
