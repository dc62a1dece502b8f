"""The command line: what it refuses, and what it shows."""

import gzip
import re
import signal

import pytest

import run_search
import search_spaces
from trainables import benchmarks
from trainables.ray import environment, names, settings
from trainables.ray.settings import Study

GAUSSIAN = ("--method", "sequential", "--benchmark", "gaussian")


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    """Run the command line in this process and an empty folder -> (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(environment, "prepare", lambda address: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda app: tmp_path / "cache")
    monkeypatch.setattr("trainables.benchmarks.sources._download", no_network)
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments):
        try:
            code = run_search.main(list(map(str, arguments)))
        except SystemExit as end:  # --help
            code = end.code
        return code, *capsys.readouterr()

    return call


def no_network(name, file, folder):
    raise OSError("no network in tests")


def complaint(ran, code=2) -> str:
    """The one line on stderr of a command that was refused."""
    found, out, err = ran
    assert found == code and out == ""
    assert err.startswith("run_search.py: ") and err.endswith("\n") and err.count("\n") == 1
    return err.removeprefix("run_search.py: ").strip()


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "typed", "meant"),
    [
        ("method", "lgm_acgn", "lgm_acgan"),
        ("benchmark", "split_digit", "split_digits"),
        ("sampler", "tp", "tpe"),
        ("scheduler", "ahsa", "asha"),
        ("metric", "joint_acuracy", "joint_accuracy"),
        ("scenario", "clas", "class"),
        ("embedder", "resnet-18", "resnet18"),
        ("attributes", "bth", "both"),
    ],
)
def test_the_nearest_name_is_suggested(cli, tmp_path, option, typed, meant):
    given = {"method": "sequential"} | {option: typed}
    said = complaint(cli(*(word for k, v in given.items() for word in (f"--{k}", v))))
    assert said.startswith(f"unknown {option} {typed!r}: did you mean {meant!r}? (known: ")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "name a method, e.g. --method lgm_acgan"),
        (("--trials", "5"), "name a method"),
        (("--methud", "joint"), "unrecognized arguments: --methud joint"),
        ((*GAUSSIAN, "--trials", "0"), "at least 1, got '0'"),
        ((*GAUSSIAN, "--trials", "-1"), "at least 1, got '-1'"),
        ((*GAUSSIAN, "--trials", "abc"), "at least 1, got 'abc'"),
        ((*GAUSSIAN, "--trials", "1.5"), "at least 1, got '1.5'"),
        ((*GAUSSIAN, "--trials"), "expected one argument"),
        ((*GAUSSIAN, "--top", "0"), "argument --top"),
        ((*GAUSSIAN, "--final-seeds", "0"), "argument --final-seeds"),
        *(
            ((*GAUSSIAN, f"--{name}", n), f"argument --{name}: expected a whole number of at least")
            for name in ("engines", "lanes")
            for n in ("0", "-1", "x", "1.5", "")
        ),
        *(
            ((*GAUSSIAN, "--gpus-per-engine", n), f"0.5, or a whole number, got {n!r}")
            for n in ("-1", "-0.5", "1.5", "x", "", "nan", "inf", "auto")
        ),
        ((*GAUSSIAN, "--seed", "-3"), "at least 0, got '-3'"),
        *(
            ((*GAUSSIAN, "--time-budget", t), f"expected 90s, 30m, 2h or 1h30m, got {t!r}")
            for t in ("soon", "5", "", "0s", "2h30", "1.5h", "30m1h")
        ),
        ((*GAUSSIAN, "--quiet", "--verbose"), "not allowed with argument"),
        *(
            (("--compare", names), "expected two or more different methods, ewc,er,joint say, got")
            for names in ("joint", "joint,joint", "joint,", "")
        ),
        (("--compare", "joint,sequentiel"), "'sequentiel': did you mean 'sequential'?"),
        (("--compare", "joint,ewc", "--method", "joint"), "leave --method out"),
        (("--compare", "joint,ewc", "--show-space"), "name it by --method"),
        (("--compare", "joint,ewc", "--fix", "ewc=1"), "joint has no hyperparameter 'ewc'"),
        (("--resume", "a", "--compare", "joint,ewc"), "leave --compare out"),
        (("--resume", "a", "--protocol", "end_of_stream"), "leave --protocol out"),
        (
            (*GAUSSIAN, "--protocol", "first_k"),
            "unknown protocol 'first_k': did you mean 'first_k_",
        ),
        ((*GAUSSIAN, "--tuning-tasks", "2"), "of --protocol first_k_tasks: add that, or leave it"),
        ((*GAUSSIAN, "--report-on", "split_digits"), "of --protocol other_stream: add that"),
        (
            (*GAUSSIAN, "--protocol", "first_k_tasks"),
            "gaussian has 3 tasks: expected fewer to tune on (--tuning-tasks) than that, got 3",
        ),
        (
            (*GAUSSIAN, "--protocol", "other_stream", "--report-on", "gausian"),
            "unknown benchmark 'gausian': did you mean 'gaussian'?",
        ),
        (("--resume", "runs/none"), "no study in runs/none (no such folder"),
        (("--resume", "."), "an empty folder where study.yaml was expected"),
        (("--resume", "a", "--method", "joint"), "leave --method out"),
        (("--resume", "a", "--search-shapes"), "leave --search-shapes out"),
        (("--resume", "a", "--study-dir", "b"), "leave --study-dir out"),
        ((*GAUSSIAN, "--embedder", "resnet18"), "resnet18"),
        ((*GAUSSIAN, "--tasks", "0"), "argument --tasks: expected a whole number of at least 1"),
        ((*GAUSSIAN, "--tasks", "4"), "gaussian has 6 classes: expected a number of tasks that"),
        ((*GAUSSIAN, "--tasks", "6", "--embedder", "base_task"), "gaussian has one class a task"),
        ((*GAUSSIAN, "--attributes", "both"), "use 'none', or a benchmark with (cub100"),
        (("--method", "joint", "--benchmark", "cub100"), "pass --data-dir DIR with DIR/CUB100/"),
        (("--resume", "a", "--tasks", "1"), "leave --tasks out"),
        (("--resume", "a", "--attributes", "both"), "leave --attributes out"),
        (("--resume", "a", "--fix", "steps=3"), "leave --fix out"),
        ((*GAUSSIAN, "--fix", "steps"), "argument --fix: expected NAME=VALUE, got 'steps'"),
        ((*GAUSSIAN, "--fix", "step=3"), "no hyperparameter 'step': did you mean 'steps'?"),
        ((*GAUSSIAN, "--fix", "lr=fast"), "expected a number for lr, got 'fast'"),
        ((*GAUSSIAN, "--fix", "network=convolutional"), "a convolutional network needs"),
        (("--method", "lgm_ae", "--embedder", "trainable"), "lgm_ae does not go with embedder"),
        (
            (*GAUSSIAN, "--metric", "cas"),
            "the metric cas is of a method that generates, which sequential does not: choose",
        ),
        (
            ("--method", "lgm_vae", "--metric", "explained_variance", "--dry-run"),
            "explained_variance is of a method that reconstructs, which lgm_vae does not",
        ),
        (
            ("--method", "joint", "--benchmark", "split_digits_10", "--scenario", "task"),
            "one class a task",
        ),
    ],
)
def test_a_wrong_command_is_refused_in_one_line(cli, tmp_path, arguments, reason):
    assert reason in complaint(cli(*arguments))
    assert not list(tmp_path.iterdir())


def test_an_occupied_folder_is_refused(cli, tmp_path):
    study, other, file = tmp_path / "study", tmp_path / "other", tmp_path / "file"
    study.mkdir(), other.mkdir(), file.touch()
    settings.write(study, Study("s", "joint"))
    (other / "thesis.tex").touch()
    said = complaint(cli(*GAUSSIAN, "--study-dir", study))
    assert f"{study} holds a study: go on with it by --resume {study}" in said
    assert "is not an empty folder" in complaint(cli(*GAUSSIAN, "--study-dir", other))
    assert "is not an empty folder" in complaint(cli(*GAUSSIAN, "--study-dir", file))


def test_a_folder_that_cannot_be_written_or_is_in_use_is_a_failure(cli, tmp_path):
    (tmp_path / "file").touch()
    said = complaint(cli(*GAUSSIAN, "--study-dir", tmp_path / "file" / "x"), code=1)
    assert said.startswith("cannot write to ")
    study = tmp_path / "study"
    with settings.in_use(study):
        settings.write(study, Study("s", "sequential", "gaussian"))
        said = complaint(cli("--resume", study), code=1)
    assert said.startswith("another search is running in ")


def test_missing_and_damaged_data_are_refused(cli, tmp_path):
    mnist = ("--method", "sequential", "--benchmark", "split_mnist", "--data-dir")
    assert "expected a folder that holds" in complaint(cli(*mnist, tmp_path / "none"))
    said = complaint(cli(*mnist, tmp_path))
    assert "expected train-images-idx3-ubyte" in said and "pass --data-dir DIR" in said
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    file = raw / "train-images-idx3-ubyte.gz"
    (raw / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x01\0"))
    for content in (b"", b"no gzip", gzip.compress(b"no idx"), gzip.compress(b"\0" * 99)[:-5]):
        file.write_bytes(content)
        assert str(file) in complaint(cli(*mnist, tmp_path))
    assert not (tmp_path / "runs").exists()


def test_a_damaged_study_is_refused(cli, tmp_path):
    (tmp_path / "study.yaml").write_text("{: [\n}}")
    assert "study.yaml is not the settings of a study" in complaint(cli("--resume", tmp_path))


# ---- what is shown -------------------------------------------------------------------------------


def test_list_names_everything(cli):
    code, out, err = cli("--list")
    assert (code, err) == (0, "")
    known = [*search_spaces.names(), *benchmarks.names(), *names.SCENARIOS, *names.SAMPLERS]
    assert all(name in out for name in (*known, *names.SCHEDULERS, *names.METRICS))


@pytest.mark.parametrize("method", search_spaces.names())
def test_show_space_names_every_parameter(cli, method):
    code, out, _ = cli("--method", method, "--show-space")
    assert code == 0
    assert all(f"{name}  " in out for name in search_spaces.load(method).DEFAULT)
    assert not re.search(r"\bhidden\b", out)
    assert "hidden" in cli("--method", method, "--show-space", "--search-shapes")[1]


def test_show_space_of_a_study(cli, tmp_path):
    settings.write(tmp_path, Study("s", "sequential", search_shapes=True))
    code, out, _ = cli("--resume", tmp_path, "--show-space")
    assert code == 0 and "hidden" in out


def test_dry_run_shows_the_plan_and_leaves_nothing(cli, tmp_path):
    (tmp_path / "runs" / "lgm_acgan-gaussian").mkdir(parents=True)
    typed = ("--method", "lgm_acgan", "--benchmark", "gaussian", "--trials", "7", "--dry-run")
    code, out, err = cli(*typed)
    assert (code, err) == (0, "")
    for text in ("runs/lgm_acgan-gaussian-2 (7 trials)", "3 tasks, class-incremental",
                 "joint accuracy on validation", "tpe, seed 0", "asha, after task 2",
                 "3 configurations and the default on 5 fresh seeds"):  # fmt: skip
        assert text in out
    assert [f.name for f in (tmp_path / "runs").iterdir()] == ["lgm_acgan-gaussian"]
    assert "cas on validation data" in cli(*typed, "--metric", "cas")[1]
    assert "after no task" in cli(*typed, "--scheduler", "none")[1]


def test_a_truth_value_is_held_however_it_is_written(cli):
    typed = ("--method", "lgm_acgan", "--benchmark", "gaussian", "--dry-run", "--fix")
    for word in ("true", "True"):
        code, out, _ = cli(*typed, f"use_prototypes={word}")
        assert code == 0 and "use_prototypes" not in out and "generator_prototype" in out


def test_a_comparison_is_a_study_for_each_method(cli, tmp_path):
    code, out, _ = cli("--compare", "joint, sequential", "--benchmark", "gaussian", "--dry-run")
    folders = [f"runs/compare-gaussian/{name} (200 trials)" for name in ("joint", "sequential")]
    assert code == 0 and all(folder in out for folder in folders)
    assert not list(tmp_path.iterdir())


def test_a_comparison_goes_on_with_each_study_as_it_was(cli, tmp_path):
    folder = tmp_path / "both"
    studies = {folder / name: Study(name, name, "gaussian") for name in ("joint", "sequential")}
    settings.write_comparison(folder, studies)
    code, out, _ = cli("--resume", folder, "--dry-run", "--trials", 7)
    assert code == 0
    assert f"{folder / 'joint'} (7 trials)" in out and f"{folder / 'sequential'} (7 trials)" in out
    said = complaint(cli("--compare", "joint,ewc", "--study-dir", folder))
    assert f"go on with it by --resume {folder}" in said
    (folder / "comparison.yaml").write_text("studies")
    said = complaint(cli("--resume", folder), code=1)
    assert "comparison.yaml does not name the studies of a comparison" in said


def test_dry_run_cuts_the_classes_as_asked(cli):
    _, out, _ = cli(*GAUSSIAN, "--tasks", "1", "--embedder", "base_task", "--dry-run")
    assert "1 tasks, class-incremental; training: 240" in out and "after no task" in out


def test_dry_run_of_a_study_shows_what_was_changed(cli, tmp_path):
    settings.write(tmp_path, Study("s", "sequential", "gaussian", trials=5, top=1))
    code, out, _ = cli("--resume", tmp_path, "--trials", "9", "--top", "2", "--dry-run")
    assert code == 0 and f"{tmp_path} (9 trials)" in out and "2 configurations and the" in out
    assert settings.read(tmp_path).trials == 5


def test_help_has_every_option_and_examples(cli):
    code, out, _ = cli("--help")
    assert code == 0
    for option in (
        *run_search.SETTINGS,
        *run_search.ADJUSTABLE,
        "time_budget",
        "resume",
        "engines",
        "lanes",
        "gpus_per_engine",
        "address",
    ):
        assert "--" + option.replace("_", "-") in out
    assert "--resume runs/lgm_acgan-split_digits --trials 300" in out


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1h1s", 3601)]
)
def test_durations(text, seconds):
    assert run_search.duration(text) == seconds


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ((), (None, None, None)),
        (("--engines", "3", "--lanes", "8"), (3, 8, None)),
        (("--lanes", "auto", "--gpus-per-engine", "0"), (None, "auto", 0.0)),
        (("--gpus-per-engine", "0.25"), (None, None, 0.25)),
        (("--gpus-per-engine", "2"), (None, None, 2.0)),
    ],
)
def test_engines_lanes_and_gpus(typed, found):
    args = run_search.parser().parse_args([*GAUSSIAN, *typed])
    assert (args.engines, args.lanes, args.gpus_per_engine) == found
