"""The page: what it says of studies of every kind, and that it stands alone."""

import json
import re
import time

import pytest

from analysis import __main__ as command
from analysis import load
from analysis.answer import sentences
from analysis.store import Record
from tests.analysis import made_up
from trainables.ray import settings
from trainables.ray.settings import Study


def page_of(*runs, out) -> str:
    assert command.main(["report", *map(str, runs), "--out", str(out)]) == 0
    return out.read_text(encoding="utf-8")


def titles(html: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", html)


def drawn(html: str) -> list[dict]:
    """The figures of a page, as Plotly takes them."""
    return [json.loads(one) for one in re.findall(r'<script type="application/json">(.*?)<', html)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "finished"
    made_up.study(folder, 60)
    return folder


@pytest.fixture(scope="module")
def html(finished):
    return page_of(finished, out=finished / "report.html")


def test_a_finished_study_has_every_section_in_order(html):
    assert titles(html) == [
        "The answer",
        "Final table",
        "How the search went",
        "Accuracy and forgetting, task by task",
        "Which knobs matter",
        "Hyperparameters at once",
        "The pair that interacts most",
        "Early stopping",
        "Loss curves",
        "Time and memory",
        "Failed trials",
        "Doctor: what may be wrong, and what to do",
    ]


def test_the_page_asks_nobody_for_anything(html):
    own = html.replace(re.search(r"<script>(/\*\*.*?)</script>", html, re.S)[1], "")
    assert "default-src 'none'" in own
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", own)
    assert len(own) < 1e6


def test_every_figure_is_labelled_and_says_what_stands_behind_it(html):
    captions = re.findall(r"<figcaption>(.*?)<span>(.*?)</span>", html)
    figures = drawn(html)
    assert len(captions) == len(figures) > 20
    assert all(re.search(r"trial|seed", behind) for _, behind in captions)
    for figure in figures:
        if {trace["type"] for trace in figure["data"]} <= {"parcoords"}:
            continue
        for axis in ("xaxis", "yaxis"):
            named = figure["layout"][axis]
            assert "categoryarray" in named or named["title"]["text"]


def test_the_answer_has_the_numbers_of_the_record(finished):
    study = load(finished)
    found, standing, trust = sentences(study)
    tested = study.best["comparison"]["winner"]["test_joint_accuracy"]
    gain = study.best["gain_over_default"]
    assert f"Use trial 1: it reaches {100 * tested['mean']:.1f} %" in found
    assert f"{100 * tested['low']:.1f} to {100 * tested['high']:.1f}, 5 seeds" in found
    assert f"{100 * gain['low']:+.1f} to {100 * gain['high']:+.1f}, paired" in found
    assert "may be chance" not in found
    assert "closes 79 % of the gap" in standing and "forgets" in standing
    assert "60 trials" in trust and "1.0 points above test data" in trust


def test_doubts_are_told(finished):
    study = load(finished)
    best = study.best | {
        "gain_over_default": {"mean": 0.01, "low": -0.02, "high": 0.04, "n": 3},
        "test_opened": 2,
    }
    won = f"trial {best['trial']}"
    best["candidates"] = best["candidates"] | {won: {"mean": 0.9, "low": 0.8, "high": 1, "n": 3}}
    del (compared := dict(best["comparison"]))["joint"]
    found, standing, trust = sentences(study._replace(best=best | {"comparison": compared}))
    assert "−2.0 to +4.0, paired over 3 seeds), which may be chance." in found
    assert "Floor and ceiling were not trained" in standing
    for doubt in ("the choice looks lucky", "3 seeds are few", "opened 2 times"):
        assert doubt in trust
    (kept, *_) = sentences(study._replace(best=best | {"trial": None, "candidates": {
        "default": best["candidates"]["default"]}}))  # fmt: skip
    assert kept.startswith("Keep the default: it reaches")


def test_the_newcomer_is_told_which_knobs_to_fix_and_how(html, finished):
    text = re.sub(r"<.*?>", "", html[html.index("Which three knobs") :])[:3000]
    config = load(finished).best["config"]
    assert re.search(rf"Set with care what matters most: .*vae_lr at {config['vae_lr']:.3g}", text)
    assert re.search(r"python run_search.py --method lgm_vae .* --fix vae_lr=[\d.]+", text)
    assert re.search(r"Hold what explains next to nothing, .* at \S+ and \w+ at", text)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"trials": 12, "winner": False}, "No winner yet: 12 of 12 trials have ended"),
        ({"trials": 2, "winner": False}, "is ahead with"),
    ],
)
def test_a_young_study_has_a_page_too(tmp_path, options, said):
    made_up.study(tmp_path / "s", **options)
    html = page_of(tmp_path / "s", out=tmp_path / "r.html")
    assert said in html and "--resume" in html and "Final table" not in titles(html)


def test_an_empty_study_and_one_of_failures_have_a_page_too(tmp_path):
    settings.write(tmp_path, Study("s", "lgm_vae", "gaussian", trials=9))
    Record(tmp_path, "s").close()
    assert "No winner yet: 0 of 9" in page_of(tmp_path, out=tmp_path / "r.html")
    about = {"method": "lgm_vae", "benchmark": "b", "scenario": "class", "protocol": "p"}
    with Record(tmp_path, "s") as record:
        for n in range(3):
            record.finish(n, {"vae_lr": 0.1}, role="search", seed=n, status="failed",
                          reason=f"nan in task {n}", tasks_learned=0, **about)  # fmt: skip
    html = page_of(tmp_path, out=tmp_path / "r.html")
    assert "Every trial has failed" in html and "<td>0, 1, 2</td>" in html  # of one cause


def test_what_was_typed_cannot_become_part_of_the_page(tmp_path):
    made_up.study(tmp_path / "s", 12, name="<script>alert(1)</script>")
    html = page_of(tmp_path / "s", out=tmp_path / "r.html")
    assert "<script>alert" not in html and "&lt;script&gt;alert" in html


@pytest.mark.parametrize("damage", ["study.yaml", "trials.parquet", "best.yaml"])
def test_what_cannot_be_read_is_one_line(tmp_path, capsys, damage):
    made_up.study(tmp_path / "s", 12)
    (tmp_path / "s" / damage).write_text("{ no")
    assert command.main(["report", str(tmp_path / "s"), "--out", str(tmp_path / "r")]) in (1, 2)
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and damage in err


@pytest.mark.slow
def test_ten_thousand_trials_of_ten_tasks_make_a_page_in_seconds(tmp_path):
    made_up.study(tmp_path / "s", 10_000, 10)
    began = time.process_time()
    html = page_of(tmp_path / "s", out=tmp_path / "r.html")
    assert time.process_time() - began < 15  # 5 on an idle core
    assert len(html) < 1e7 and "1,000 of 6," in html
