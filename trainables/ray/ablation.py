"""The ablation: what becomes of a study's winner without one of its loss terms, or with one of its
choices made otherwise.

Every variant and the winner itself are trained on the same seeds, which no search trial and no
rerun of the final phase had: the winner's own score there is not the lucky one that it was chosen
for. They train on training data and are scored on validation data; test data stays closed.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from optuna.distributions import CategoricalDistribution
from optuna.trial import FixedTrial

from analysis.ablation import CHOICE, TERM, Ablation, Variant
from analysis.reading import best, read
from analysis.schema import FIRST_ABLATION
from analysis.store import Record
from trainables.engine.method import configure
from trainables.ray.reruns import Contender, fresh_seeds, rows_of, states, train
from trainables.ray.settings import Study, StudyError
from trainables.ray.study import Session, stream_of_study

ROLE = "ablation"


class Lineup(NamedTuple):
    """Who is trained, and which loss terms cannot be taken out."""

    winner: Contender
    terms: list[Contender]  # the coefficient of one loss term is zero
    choices: list[Contender]  # one text or truth value is another one
    off: list[str]  # loss terms that are zero in the winner

    @property
    def everyone(self) -> list[Contender]:
        return [self.winner, *self.terms, *self.choices]


def run(
    study: Study,
    directory: Path,
    record: Record,
    count: int,
    opened: Callable[[], AbstractContextManager[tuple[Session, Any]]],
) -> Ablation:
    """Train what the record does not hold yet, and read the scores.

    Args:
        study, directory, record: a study that has chosen its winner.
        count: of fresh seeds.
        opened: the study's engines, only asked for if there is something to train.

    Raises:
        RecordError: if the study has no winner yet.
        StudyError: if there is nothing to take out, the data cannot be read, or a state cannot be
            saved.
    """
    winner = Contender("winner", study.method, best(directory)["config"])
    lineup = lineup_of(study, winner, on_in(record, winner))
    if len(lineup.everyone) == 1:
        raise StudyError(
            f"{study.method} has no loss term with a coefficient and no choice: there is nothing "
            "to take out of it"
        )
    seeds = fresh_seeds(ROLE, study.seed, count)
    known = rows_of(record.trials(), ROLE)
    if any((*one.key, seed) not in known for one in lineup.everyone for seed in seeds):
        try:
            stream_of_study(study)  # before Ray starts
        except ValueError as error:
            raise StudyError(str(error)) from error
        with opened() as (session, _):
            train(session, lineup.everyone, ROLE, seeds, FIRST_ABLATION)
        shutil.rmtree(states(directory, ROLE), ignore_errors=True)
    return measured(study, lineup, rows_of(record.trials(), ROLE), seeds)


def on_in(record: Record, winner: Contender) -> dict[str, bool]:
    """The loss terms that a contender's trials report, and whether each was ever other than zero.

    Raises:
        StudyError: if the record has none of them.
    """
    record.flush()
    mine = [
        row["trial_id"]
        for row in record.trials()
        if (row["method"], json.dumps(row["config"], sort_keys=True)) == winner.key
    ]
    losses = read(record.directory).losses
    losses = losses[losses.trial_id.isin(mine)]
    if losses.empty:
        raise StudyError(
            f"the record in {record.directory} has no losses of the winner in best.yaml: bring the "
            f"study to its end with python run_search.py --resume {record.directory}"
        )
    return {str(term): bool((told.value != 0).any()) for term, told in losses.groupby("term")}


def lineup_of(study: Study, winner: Contender, on: Mapping[str, bool]) -> Lineup:
    """The winner and its variants.

    A loss term with a coefficient is a hyperparameter that bears the name of a loss that the method
    reports (``engine.losses.weighted``). A choice is a parameter of the space whose values are text
    or true and false; where another choice brings conditional parameters, they have the method's
    defaults, and those that it takes away go. Choices among numbers are left alone, and so is one
    that takes away a single coefficient: that is the loss term without which the winner is trained
    already.

    Args:
        study: settings.
        winner: of the study.
        on: name of a reported loss -> whether it is ever other than zero.
    """
    _, method, config, _ = winner
    space = study.space()
    shape, hyper = configure(study.module, config)
    values = shape._asdict() | hyper._asdict()
    coefficients = [name for name in hyper._fields if name in on]
    off = [name for name in coefficients if not on[name] or not values[name]]
    on_in_winner = [name for name in coefficients if name not in off]
    terms = [Contender(f"{name} = 0", method, config | {name: 0.0}) for name in on_in_winner]
    trial = FixedTrial(values)
    space(trial)
    choices = [
        Contender(f"{name} = {other}", method, space(FixedTrial(values | {name: other})))
        for name, distribution in trial.distributions.items()
        if isinstance(distribution, CategoricalDistribution)
        and all(isinstance(choice, str | bool) for choice in distribution.choices)
        for other in distribution.choices
        if other != values[name]
    ]
    without = [{name} for name in on_in_winner]
    choices = [one for one in choices if config.keys() - one.config.keys() not in without]
    return Lineup(winner, terms, choices, off)


def measured(
    study: Study,
    lineup: Lineup,
    rows: Mapping[tuple[str, str, int], dict[str, Any]],
    seeds: Sequence[int],
) -> Ablation:
    """The scores of a lineup in the record, one a seed; 0 where it diverged.

    Args:
        rows: of trials.parquet, by contender and seed, as ``rows_of``.
    """

    def scored(contender: Contender, group: str) -> Variant:
        mine = [rows[*contender.key, seed] for seed in seeds]
        diverged = sum(row["status"] == "failed" for row in mine)
        return Variant(contender.label, group, [row["score"] or 0.0 for row in mine], diverged)

    return Ablation(
        study.name,
        study.method,
        study.benchmark,
        study.metric,
        winner=scored(lineup.winner, "winner"),
        variants=[scored(one, TERM) for one in lineup.terms]
        + [scored(one, CHOICE) for one in lineup.choices],
        off=lineup.off,
    )
