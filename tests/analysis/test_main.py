"""``python -m analysis``: what it refuses, in which words."""

import pytest

from analysis import __main__ as command
from analysis.store import Record
from trainables.ray import environment, settings
from trainables.ray.settings import Study


@pytest.fixture
def cli(capsys, monkeypatch):
    """Run the command line in this process -> (exit code, stdout, stderr)."""
    monkeypatch.setattr(environment, "prepare", lambda address: None)

    def call(*arguments):
        try:
            code = command.main(list(map(str, arguments)))
        except SystemExit as end:  # --help
            code = end.code
        return code, *capsys.readouterr()

    return call


def complaint(ran, code) -> str:
    """The one line on stderr of a command that was refused."""
    found, out, err = ran
    assert found == code and out == ""
    assert err.startswith("python -m analysis: ") and err.endswith("\n") and err.count("\n") == 1
    return err.removeprefix("python -m analysis: ").strip()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "required: COMMAND"),
        (("ablat", "x"), "invalid choice: 'ablat'"),
        (("ablate",), "required: RUN"),
        (("ablate", "x", "--seeds", "0"), "argument --seeds: expected a whole number of at least"),
        (("ablate", "x", "--gpus-per-engine", "1.5"), "0.5, or a whole number, got '1.5'"),
        (("ablate", "none"), "no study in none (no such folder"),
        (("facil", "none"), "no study in none (no such folder"),
        (("pictures", "none"), "no study in none (no such folder"),
        (("pictures", "x", "--seeds", "3"), "unrecognized arguments: --seeds 3"),
    ],
)
def test_a_wrong_command_is_refused_in_one_line(cli, arguments, reason):
    assert reason in complaint(cli(*arguments), 2)


@pytest.mark.parametrize("name", ["ablate", "pictures"])
def test_a_study_that_is_not_finished_says_how_to_go_on(cli, tmp_path, name):
    settings.write(tmp_path, Study("s", "lgm_vae", "gaussian"))
    Record(tmp_path, "s").close()
    said = complaint(cli(name, tmp_path), 1)
    assert f"{tmp_path} has no winner yet" in said and f"--resume {tmp_path}" in said


def test_a_study_at_which_another_process_works_is_left_alone(cli, tmp_path):
    settings.write(tmp_path, Study("s", "lgm_vae", "gaussian"))
    with settings.in_use(tmp_path):
        assert "another search is running in" in complaint(cli("ablate", tmp_path), 1)


def test_help_teaches(cli):
    code, out, _ = cli("--help")
    assert code == 0 and "ablate RUN --seeds 10" in out and "pictures RUN" in out
    code, out, _ = cli("ablate", "--help")
    assert code == 0 and "same fresh\nseeds" in out and "--address" in out
