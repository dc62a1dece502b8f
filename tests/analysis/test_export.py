"""Tables for other programs."""

import pandas as pd
import pytest

from analysis import __main__ as command
from analysis import export, load
from tests.analysis import made_up


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "lgm_vae_1"
    made_up.study(folder, 8)
    return folder


def test_csv_has_every_row_of_the_record(run, tmp_path, capsys):
    assert command.main(["export", str(run), "--csv", str(tmp_path / "t")]) == 0
    study, said = load(run), capsys.readouterr().out
    for name in export.FRAMES:
        file = tmp_path / "t" / f"{name}.csv"
        assert str(file) in said
        assert len(pd.read_csv(file)) == len(getattr(study, name))
    final = pd.read_csv(tmp_path / "t" / "final.csv")
    assert [*final.name] == ["winner (trial 1)", "default", "sequential (floor)", "joint (ceiling)"]


def test_latex_and_markdown_have_the_final_table(run, tmp_path):
    files = tmp_path / "t.tex", tmp_path / "t.md"
    arguments = ["--latex", str(files[0]), "--markdown", str(files[1])]
    assert command.main(["export", str(run), *arguments]) == 0
    latex, markdown = (file.read_text(encoding="utf-8") for file in files)
    tested = load(run).best["comparison"]["winner"]["test_joint_accuracy"]
    mean, half = 100 * tested["mean"], 50 * (tested["high"] - tested["low"])
    assert f"winner (trial 1) & {mean:.1f} $\\pm$ {half:.1f} &" in latex
    assert r"joint accuracy, \%" in latex and latex.count(" \\\\\n") == 5
    assert f"| winner (trial 1)   | {mean:19.1f}"[:22] in markdown


def test_text_is_escaped_for_latex():
    assert export.escaped(r"a_b & 5 % \x") == r"a\_b \& 5 \% \textbackslash{}x"


def test_what_cannot_be_exported_is_one_line(run, tmp_path, capsys):
    assert command.main(["export", str(run)]) == 2
    assert "at least one of --csv" in capsys.readouterr().err
    made_up.study(tmp_path / "young", 4, winner=False)
    file = str(tmp_path / "t.md")
    assert command.main(["export", str(tmp_path / "young"), "--markdown", file]) == 1
    said = capsys.readouterr().err
    assert "has no winner yet" in said and said.count("\n") == 1
    assert command.main(["export", str(tmp_path / "young"), "--csv", str(tmp_path / "c")]) == 0
