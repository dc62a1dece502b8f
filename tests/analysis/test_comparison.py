"""Studies side by side, from records made by hand."""

import io

import pytest
import yaml
from rich.console import Console

from analysis import comparison
from analysis.log import RecordError
from analysis.store import Record
from tests.analysis.test_store import COLUMNS

# t(1): the 97.5 % point with one degree of freedom is 12.7062.
SEEDS = [2**60, 7]


def study(folder, method, tuned, default, trial: int | None = 3, **changes):
    """A study that has ended: joint accuracies on test data, one a seed."""
    plain = {
        label: {"per_seed_test_joint_accuracy": dict(zip(SEEDS, values, strict=True))}
        for label, values in (("winner", tuned), ("default", default))
    }
    best = {
        "method": method, "benchmark": "gaussian", "scenario": "class", "trials": 40,
        "protocol": "end_of_stream", "trial": trial, "config": {}, "comparison": plain,
    } | changes  # fmt: skip
    with Record(folder, method) as record:
        for i, seed in enumerate(SEEDS):
            for j, label in enumerate(("trial 3", "default")):
                number = 1_000_000 + 2 * i + j
                for t, row in enumerate([[0.9], [0.5 + 0.2 * i, 0.9]]):
                    examples = {"validation": [10] * (t + 1)}
                    record.task(number, seed, t, {"validation": row}, examples)
                about = {"role": "final", "label": label, "method": method, "seed": seed}
                about |= {"tasks_learned": 2, "memory_bytes": 1000 + j, "seconds": 2.0 + i}
                record.finish(number, {}, **COLUMNS | about)
    (folder / "best.yaml").write_text(yaml.safe_dump(best))
    return folder


@pytest.fixture
def folders(tmp_path):
    return [
        study(tmp_path / "ewc", "ewc", [0.4, 0.5], [0.3, 0.4]),
        study(tmp_path / "er", "er", [0.7, 0.9], [0.7, 0.9], trial=None),
    ]


def test_the_best_comes_first_and_differences_are_paired(folders):
    (er, ewc), trials = comparison.read(folders)
    assert (er.method, ewc.method, trials) == ("er", "ewc", 40)
    assert list(ewc.tuned) == [0.5, 0.4]  # by seed: 7, 2**60
    assert ewc.forgetting == pytest.approx([0.2, 0.4])
    assert (ewc.memory_bytes, er.memory_bytes) == (1000, 1001)  # of the trial, of the default
    assert ewc.seconds == 2.5
    assert comparison.points(ewc.tuned, ewc.default) == "+10.0 ± 0.0"
    assert comparison.points(ewc.tuned, er.tuned) == "−35.0 ± 63.5"  # t(1) · 5
    assert comparison.points([0.5], [0.4]) == "+10.0 ± n/a"


def test_the_table_and_its_markdown_have_the_same_cells(folders):
    found = comparison.read(folders)
    text = io.StringIO()
    Console(file=text, width=120).print(comparison.comparison_table(*found))
    lines = comparison.comparison_markdown(*found).splitlines()
    assert [len(line.split("|")) for line in lines[:4]] == [len(comparison.HEADER) + 2] * 4
    for line in lines[2:4]:
        for cell in line.strip("| ").split("|"):
            assert cell.strip() in text.getvalue()
    assert "40 trials each" in lines[-1] and "over 2 fresh seeds" in lines[-1]


@pytest.mark.parametrize(
    ("name", "value"), [("protocol", "first_k_tasks"), ("benchmark", "split_digits"), ("trials", 1)]
)
def test_what_is_not_alike_is_not_compared(folders, tmp_path, name, value):
    other = study(tmp_path / "si", "si", [0.4, 0.5], [0.3, 0.4], **{name: value})
    with pytest.raises(RecordError, match=f"cannot compare .*si with .*ewc: {name} is {value!r}"):
        comparison.read([*folders, other])


def test_other_seeds_are_not_compared(folders, monkeypatch, tmp_path):
    monkeypatch.setattr(f"{__name__}.SEEDS", [1, 2])
    other = study(tmp_path / "si", "si", [0.4, 0.5], [0.3, 0.4])
    with pytest.raises(RecordError, match="other seeds"):
        comparison.read([*folders, other])


def test_a_study_without_a_winner_is_named(folders):
    (folders[1] / "best.yaml").unlink()
    with pytest.raises(RecordError, match="er has no winner yet"):
        comparison.read(folders)
