"""FACIL's way beside a study that has ended: whose scores are compared, and what is refused."""

import pytest
import yaml

from analysis.facil import choices, table
from analysis.log import RecordError
from analysis.store import Record
from tests.analysis.test_store import COLUMNS
from trainables.engine import facil as engine_facil
from trainables.engine import metrics
from trainables.ray import facil
from trainables.ray.final import seeds_of
from trainables.ray.settings import Study, StudyError
from trainables.ray.study import report_plan
from trainables.ray.trial import stream_of

STUDY = Study("s", "ewc", "gaussian", final_seeds=2, fixed={"steps": 12})
SCORES = {"trial 4": [0.5, None], "default": [0.25, 0.75]}  # the winner diverged on one seed


@pytest.fixture
def ended(tmp_path):
    with Record(tmp_path, "s") as record:
        record.finish(0, {}, **COLUMNS | {"role": "search", "tasks_learned": 3})
        for label, scores in SCORES.items():
            for seed, score in zip(seeds_of(STUDY), scores, strict=True):
                about = {"role": "final", "label": label, "seed": seed, "score": score}
                status = {"status": "failed" if score is None else "completed"}
                number = 1_000_000 + len(record.trials())
                record.finish(number, {}, **COLUMNS | about | status | {"tasks_learned": 0})
    (tmp_path / "best.yaml").write_text(yaml.safe_dump({"trial": 4, "config": {}}))
    return tmp_path


def test_its_walks_are_compared_with_the_scores_of_the_same_seeds(ended, monkeypatch):
    walks, told, walk = [], [], engine_facil.walk

    def kept(*arguments):
        walks.append(walk(*arguments))
        assert arguments[2].steps == 12 and arguments[3:5] == ("ewc", 100.0)
        assert arguments[5] == seeds_of(STUDY)[len(walks) - 1]
        return walks[-1]

    monkeypatch.setattr(engine_facil, "walk", kept)
    found = facil.run(STUDY, ended, told.append)
    examples = [len(task.validation.y) for task in stream_of(report_plan(STUDY)).tasks]
    own = [float(metrics.joint_accuracy(walk.accuracy, examples)) for walk in walks]
    assert found.scores == {"winner": [0.5, 0.0], "default": [0.25, 0.75], "FACIL": own}
    assert (told, found.searched) == ([1, 2], 3)
    rows = yaml.safe_load((ended / "facil.yaml").read_text())
    assert [row["seed"] for row in rows] == seeds_of(STUDY)
    assert [row["ewc"] for row in rows] == found.coefficients
    assert [row["joint_accuracy"] for row in rows] == pytest.approx(own)
    assert table(found).row_count == 3 and "task by task: lr 0.01" in choices(found)


def test_a_walk_that_diverged_counts_as_zero(ended, monkeypatch):
    monkeypatch.setattr(engine_facil, "RATES", (1e300,))
    assert facil.run(STUDY, ended, print).scores["FACIL"] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"method": "er"}, "er has no single coefficient that trades"),
        ({"metric": "cas"}, "judged by accuracy, this study by cas"),
    ],
)
def test_what_it_cannot_do_is_said(ended, change, reason):
    with pytest.raises(StudyError, match=reason):
        facil.run(STUDY._replace(**change), ended, print)


def test_a_final_phase_that_lacks_a_seed_says_how_to_go_on(ended):
    with pytest.raises(RecordError, match=r"lacks reruns of the final phase.*--resume"):
        facil.run(STUDY._replace(final_seeds=3), ended, print)
