"""What trials of a study are compared by before their end, and what the record says they reported.

Whole studies are in ``tests/test_whole_studies.py``.
"""

import pytest
import torch

from analysis.store import Record
from trainables.benchmarks import Split
from trainables.ray.settings import Study
from trainables.ray.study import rung_of, walked

SIZES = [10, 30]


def test_generators_are_compared_as_generators():
    study = Study("s", "lgm_vae")
    assert rung_of(study) == "retained_accuracy"
    for metric in ("cas", "explained_variance"):
        assert rung_of(study._replace(metric=metric)) == metric


def test_a_trial_in_the_record_reports_what_it_reported_when_it_ran(tmp_path):
    held_out = [Split(torch.zeros(n, 2), torch.zeros(n, dtype=torch.int64)) for n in SIZES]
    with Record(tmp_path, "s") as record:
        for t, (row, cas) in enumerate([([0.9], [0.7]), ([0.5, 0.8], [0.6, 0.2])]):
            about = {"validation": row}, {"validation": SIZES[: t + 1]}
            record.task(0, 7, t, *about, quality={"validation": {"cas": cas}})
            record.task(1, 7, t, *about)
        first, second = walked(record, 0, held_out)
        assert (first["cas"], second["cas"]) == pytest.approx((0.7, 0.3))  # by examples
        assert second["retained_accuracy"] == 0.5
        assert second["joint_accuracy"] == pytest.approx((5 + 24) / 40)
        assert all("cas" not in report for report in walked(record, 1, held_out))
        assert walked(record, 2, held_out) == []
