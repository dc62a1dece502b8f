"""Matrices and forgetting over seeds against ``metrics`` and ``statistics``."""

import numpy as np
import pytest

from analysis import forgetting
from analysis.statistics import mean_interval
from tests.analysis.studies import study
from trainables.engine import metrics

FIRST = [[0.8], [0.9, 0.7], [0.5, 0.6, 1.0]]
SECOND = [[0.6], [0.4, 0.9], [0.5, 0.8, 0.9]]


def ended(**settings):
    final = {"role": "final", "label": "trial 0"}
    trials = [
        {"score": 0.3},
        {"trial_id": 1_000_000} | final,
        {"trial_id": 1_000_001} | final,
        {"trial_id": 1_000_002, "status": "failed"} | final,
        {"trial_id": 1_000_003} | final | {"label": "default"},
    ]
    matrices = {0: SECOND, 1_000_000: FIRST, 1_000_001: SECOND, 1_000_002: [[0.1]]}
    return study(trials, matrices, **{"best": {"trial": 0, "config": {}}} | settings)


def test_contenders_are_found_by_their_labels():
    assert forgetting.runs_of(ended()) == [1_000_000, 1_000_001]
    assert forgetting.runs_of(ended(), "default") == [1_000_003]
    assert forgetting.runs_of(ended(best={"trial": None, "config": {}})) == [1_000_003]
    assert forgetting.runs_of(ended(best=None)) == [0]  # the best of the search so far
    assert forgetting.runs_of(study()) == forgetting.runs_of(ended(), "joint") == []


def test_each_cell_is_a_mean_with_students_interval():
    found = forgetting.mean_matrix(ended(), [1_000_000, 1_000_001])
    assert list(zip(found.on_task, found.after_task, strict=True)) == [
        (0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)
    ]  # fmt: skip
    for cell in found.to_dict("records"):
        i, j = cell["after_task"], cell["on_task"]
        expected = mean_interval([FIRST[i][j], SECOND[i][j]])
        found_here = cell["mean"], cell["low"], cell["high"], cell["seeds"]
        assert found_here == pytest.approx(tuple(expected))


def test_one_run_has_no_interval_and_none_has_no_cells():
    one = forgetting.mean_matrix(ended(), [0])
    assert one.low.isna().all() and (one.seeds == 1).all() and one["mean"].notna().all()
    assert forgetting.mean_matrix(ended(), []).empty
    assert forgetting.by_task(study(), []).empty
    assert forgetting.mean_matrix(ended(), [0], "test").empty


def test_forgetting_by_task_is_chaudhrys():
    found = forgetting.by_task(ended(), [1_000_000, 1_000_001])
    by_run = [metrics.forgetting(np.array([[*r, *[np.nan] * (3 - len(r))] for r in m]))
              for m in (FIRST, SECOND)]  # fmt: skip
    assert found["mean"].mean() == pytest.approx(np.mean(by_run))
    assert found["mean"].tolist() == pytest.approx([(0.4 + 0.1) / 2, (0.1 + 0.1) / 2])
    assert found.learned.tolist() == pytest.approx([0.7, 0.8])
    assert found["last"].tolist() == pytest.approx([0.5, 0.7])
    assert found.low[0] == pytest.approx(mean_interval([0.4, 0.1]).low)
