"""All metrics of a study, from a record made by hand."""

import io

import numpy as np
import pytest
import yaml
from rich.console import Console

from analysis import measures
from analysis.log import RecordError
from analysis.store import Record
from tests.analysis.test_store import COLUMNS

A = [[0.8], [0.9, 0.7], [0.5, 0.6, 1.0]]
AWARE = [0.9, 0.8, 1.0]
JUST_BEFORE = [0.5, 0.7, 0.6]  # the first is that of the untrained network
UNTRAINED = [0.5, 0.5, 0.4]
SEEN, UNSEEN = [0.8, 0.7, 0.6], [0.2, 0.4, np.nan]


def enter(record, trial_id, label, seed, rows, quality=None, status="completed"):
    for t, row in enumerate(rows):
        about = {name: values[: t + 1] for name, values in (quality or {}).items()}
        sizes = {"validation": [10, 10, 20][: t + 1]}
        record.task(trial_id, seed, t, {"validation": row}, sizes, quality={"validation": about})
    about = {"role": "final", "label": label, "seed": seed, "status": status}
    record.finish(trial_id, {}, **COLUMNS | about | {"tasks_learned": len(rows)})


@pytest.fixture
def study(tmp_path):
    quality = {
        "task_accuracy": AWARE, "zero_shot_accuracy": JUST_BEFORE,
        "untrained_accuracy": UNTRAINED, "seen_accuracy": SEEN, "unseen_accuracy": UNSEEN,
    }  # fmt: skip
    with Record(tmp_path, "s") as record:
        for i, seed in enumerate((2**60, 7)):
            enter(record, 1_000_000 + i, "trial 3", seed, A, quality)
            enter(record, 1_000_010 + i, "default", seed, A)
            enter(record, 1_000_020 + i, "joint", seed, [[0.8], [0.8, 0.9], [0.9, 0.9, 0.9]])
        enter(record, 1_000_030, "sequential", 7, A[:1], status="failed")
    best = {"trial": 3, "config": {}}
    (tmp_path / "best.yaml").write_text(yaml.safe_dump(best))
    return tmp_path


def test_each_is_what_its_formula_says(study):
    winner, default, joint = measures.read(study)
    assert [one.name for one in (winner, default, joint)] == ["winner", "default", "joint"]
    expected = {
        "joint_accuracy": (5 + 6 + 20) / 40,
        "average_accuracy": 0.7,
        "learning_accuracy": 2.5 / 3,
        "task_aware_accuracy": 0.9,
        "task_gap": 0.2,
        "forgetting": (0.4 + 0.1) / 2,
        "forgetting_speed": (0.3 / 2 + 0.1) / 2,
        "backward_transfer": -0.2,
        "forward_transfer": (0.2 + 0.2) / 2,
        "intransigence": (0.0 + 0.2 - 0.1) / 3,
        "seen_accuracy": 0.75,
        "unseen_accuracy": 0.3,
    }
    for name, value in expected.items():
        assert winner.measured[name] == pytest.approx([value] * 2), name
    assert default.measured["intransigence"] == pytest.approx([0.1 / 3] * 2)
    assert "task_gap" not in default.measured and joint.measured["intransigence"] == [0, 0]


def test_the_table_says_what_each_of_them_is(study):
    text = io.StringIO()
    Console(file=text, width=160).print(measures.measures_table(measures.read(study)))
    shown = text.getvalue()
    assert "winner (n = 2)" in shown and "90.0 ± 0.0" in shown and "n/a" in shown
    assert "harmonic mean" not in shown and "what not knowing the task costs" in shown


def test_a_study_that_is_not_at_its_end_is_refused(study):
    (study / "best.yaml").write_text(yaml.safe_dump({"trial": 5, "config": {}}))
    assert [one.name for one in measures.read(study)] == ["default", "joint"]
    (study / "best.yaml").unlink()
    with pytest.raises(RecordError, match="no winner yet"):
        measures.read(study)
