"""Several studies on one page: who is compared with whom, and what is said of the others."""

import re

import pytest
import yaml

from analysis import __main__ as command
from analysis import load, report_comparison
from analysis.comparison import blocks, streams
from tests.analysis import made_up


def ended(folder, method, level, **changes):
    """A study with a winner that reaches about this accuracy on test data."""
    made_up.study(folder, 12, method="lgm_vae")
    file = folder / "best.yaml"
    best = yaml.safe_load(file.read_text()) | {"method": method} | changes
    winner = best["comparison"]["winner"]
    tested = winner["per_seed_test_joint_accuracy"]
    tested = {seed: level + 0.001 * n for n, seed in enumerate(tested)}
    winner["per_seed_test_joint_accuracy"] = tested
    file.write_text(yaml.safe_dump(best))
    about = yaml.safe_load((folder / "study.yaml").read_text())
    (folder / "study.yaml").write_text(yaml.safe_dump(about | {"method": method} | changes))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return [
        ended(root / "a", "er", 0.6),
        ended(root / "b", "lgm_vae", 0.8),
        ended(root / "c", "ewc", 0.5, protocol="first_k_tasks"),
    ]


def test_studies_of_one_stream_are_compared_and_others_named(folders):
    said = report_comparison.sentences([load(folder) for folder in folders])
    assert said[0].startswith("On split_digits (class, end_of_stream, 12 trials), lgm_vae is first")
    assert "ahead of er (by 20.0 points, +20.0 to +20.0)" in said[0]
    assert said[1].startswith("Not compared: ewc (split_digits (class, first_k_tasks")


def test_methods_are_ranked_on_seeds_or_on_benchmarks(folders, tmp_path):
    one = streams([load(folder) for folder in folders[:2]])
    scores, block = blocks(one)
    assert block == "seed" and scores.shape == (5, 2) and [*scores] == ["lgm_vae", "er"]
    others = [ended(tmp_path / m, m, 0.7, benchmark="split_mnist") for m in ("er", "lgm_vae")]
    two = streams([load(folder) for folder in (*folders[:2], *others)])
    scores, block = blocks(two)
    assert block == "benchmark" and [*scores.index] == ["split_digits", "split_mnist"]
    assert scores.loc["split_digits", "lgm_vae"] == pytest.approx(0.802)


@pytest.mark.parametrize(
    "change", [{"embedder": "base_task"}, {"attributes": "both"}, {"tasks": 3}, {"memory": 100}]
)
def test_what_was_set_otherwise_is_another_stream(folders, change):
    one, other = (load(folder) for folder in folders[:2])
    assert len(streams([one, other])) == 1
    assert len(streams([one, other._replace(settings=other.settings | change)])) == 2


def test_one_method_twice_goes_by_the_name_of_the_study(folders, tmp_path):
    again = ended(tmp_path / "again", "er", 0.7)
    (stream,) = streams([load(folder) for folder in (folders[0], folders[1], again)])
    assert [one.method for one in stream.entries] == ["lgm_vae", "again", "a"]


def test_the_page_compares_first_and_shows_each_study(folders, tmp_path):
    made_up.study(tmp_path / "young", 4, winner=False)
    out = tmp_path / "r.html"
    runs = [str(folder) for folder in (*folders, tmp_path / "young")]
    assert command.main(["report", *runs, "--out", str(out)]) == 0
    html = out.read_text()
    titles = re.findall(r"<h2>(.*?)</h2>", html)
    stream = "split_digits (class, end_of_stream, 12 trials)"
    assert titles == [
        "The answer",
        f"Equal budget on {stream}",
        "Ranks, and what is more than chance",
        f"What tuning buys on {stream}",
        f"At what price on {stream}",
        "Methods and benchmarks",
        "a", "b", "c", "young",
    ]  # fmt: skip
    assert "No winner yet, so not compared: young." in html


def test_the_folder_of_a_comparison_stands_for_its_studies(folders, tmp_path, capsys):
    root = folders[0].parent
    (root / "comparison.yaml").write_text(yaml.safe_dump({"studies": ["a", "b"]}))
    assert command.main(["report", str(root)]) == 0
    assert "lgm_vae is first" in capsys.readouterr().out
    assert "2 studies compared" in (root / "report.html").read_text()
