"""The command line: what it refuses, what it shows, and whole studies of a few small trials."""

import contextlib
import gzip
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
import yaml
from optuna.trial import TrialState

import run_search
import search_spaces
from analysis import store
from trainables import benchmarks
from trainables.engine import metrics
from trainables.ray import environment, names, settings
from trainables.ray.searcher import open_study
from trainables.ray.settings import Study

ROOT = Path(__file__).parent.parent
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
        ((*GAUSSIAN, "--engines", "0"), "argument --engines"),
        ((*GAUSSIAN, "--seed", "-3"), "at least 0, got '-3'"),
        *(
            ((*GAUSSIAN, "--time-budget", t), f"expected 90s, 30m, 2h or 1h30m, got {t!r}")
            for t in ("soon", "5", "", "0s", "2h30", "1.5h", "30m1h")
        ),
        ((*GAUSSIAN, "--quiet", "--verbose"), "not allowed with argument"),
        (("--resume", "runs/none"), "no study in runs/none (no such folder"),
        (("--resume", "."), "an empty folder where study.yaml was expected"),
        (("--resume", "a", "--method", "joint"), "leave --method out"),
        (("--resume", "a", "--search-shapes"), "leave --search-shapes out"),
        (("--resume", "a", "--study-dir", "b"), "leave --study-dir out"),
        ((*GAUSSIAN, "--embedder", "resnet18"), "resnet18"),
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
    assert "hidden" not in out
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
    assert "after no task" in cli(*typed, "--scheduler", "none")[1]


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
        "address",
    ):
        assert "--" + option.replace("_", "-") in out
    assert "--resume runs/lgm_acgan-split_digits --trials 300" in out


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1h1s", 3601)]
)
def test_durations(text, seconds):
    assert run_search.duration(text) == seconds


# ---- whole studies -------------------------------------------------------------------------------


def environment_of(home: Path) -> dict[str, str]:
    own = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TUNE_"))}
    return own | {"HOME": str(home), "COLUMNS": "100", "OMP_NUM_THREADS": "1"}


class Driver:
    """``run_search.py`` in a process and a session of its own."""

    def __init__(self, env, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "run_search.py", *map(str, arguments)],
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def end(self, code=0) -> str:
        """Wait for the exit code; returns stdout, or stderr of what did not succeed."""
        out, err = self.process.communicate(timeout=180)
        assert self.process.returncode == code, err + out
        return out if code == 0 else err

    def wait_for(self, folder: Path, trials: int) -> None:
        """Until so many search trials have ended in the study's record."""
        log = folder / "log.jsonl"
        while not log.exists() or log.read_bytes().count(b'"event": "finish"') < trials:
            assert self.process.poll() is None, self.end(-1)
            time.sleep(0.02)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


CLUSTER = """
import sys
from trainables.ray import environment
environment.prepare(None)
import ray
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
ray.shutdown()
"""


@pytest.fixture(scope="module")
def cluster(home):
    """A cluster that asks for a token; the environment of its users, and its address."""
    env = environment_of(home)
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        cwd=ROOT,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout
        address = process.stdout.readline().strip()
        assert address
        yield env | environment.LOCAL, ("--address", address)
        process.communicate("")


def searched(folder: Path) -> pd.DataFrame:
    """The rows of the search in trials.parquet, by number."""
    trials = pd.read_parquet(folder / "trials.parquet")
    return trials[trials.role == "search"].set_index("trial_id")


def check(folder: Path, trials: int) -> pd.DataFrame:
    """What must hold of a study that came to its end; returns its search trials."""
    rows, study = searched(folder), settings.read(folder)
    assert rows.index.tolist() == list(range(trials)) and study.trials == trials
    assert set(rows.status) <= {"completed", "stopped", "failed"}
    journal = open_study(folder / "study.journal", study.name).get_trials(deepcopy=False)
    ends = {"completed": TrialState.COMPLETE, "stopped": TrialState.PRUNED}
    assert [t.state for t in journal] == [ends[status] for status in rows.status]
    assert rows.score.equals(rows.joint_accuracy.where(rows.status == "completed"))

    tables = store.read(folder)
    assert not tables.accuracy.duplicated(["trial_id", "split", "after_task", "on_task"]).any()
    for number, row in tables.trials.set_index("trial_id").iterrows():
        a, examples = store.matrix(tables.accuracy, number)
        assert len(a) == row.tasks_learned
        for name, value in metrics.summary(a, examples).items():
            if name in row:
                assert row[name] == value
    on_test = tables.accuracy[tables.accuracy.split == "test"]
    assert set(on_test.trial_id) <= set(tables.trials[tables.trials.role == "final"].trial_id)
    files = {name: str(folder / f"{name}.parquet") for name in ("trials", "accuracy", "losses")}
    for name, file in files.items():
        ((count,),) = duckdb.sql(f"select count(*) from '{file}'").fetchall()
        assert count == len(getattr(tables, name)) == len(pd.read_parquet(file)) > 0

    best = yaml.safe_load((folder / "best.yaml").read_text())
    assert list(best["comparison"]) == ["winner", "default", "joint"]  # the default is the floor
    assert set(best["config"]) == {"steps", "lr", "beta1", "label_smoothing"}
    assert all(np.isfinite(c["test_joint_accuracy"]["mean"]) for c in best["comparison"].values())
    left = [f for f in (folder / "checkpoints").iterdir() if f.name != "final"]
    assert not left
    return rows


def processes(root: int) -> list[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found


def name_of(pid: int) -> str:
    """The command of a process, nothing if it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().strip("\0 ")
    return ""


PATIENT = ("", "ray::DashboardAgent", "ray::RuntimeEnvAgent")  # end a minute after their raylet


def listening(pids: list[int]) -> set[str]:
    """Local addresses, in hexadecimal, on which these processes listen for TCP connections."""
    inodes = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for file in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    inodes.add(str(file.readlink()))
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError):
            for line in Path(table).read_text().splitlines()[1:]:
                cells = line.split()
                if cells[3] == "0A" and f"socket:[{cells[9]}]" in inodes:
                    found.add(cells[1].partition(":")[0])
    return found


# 127.0.0.1, ::1 and ::ffff:127.0.0.1 as /proc writes them on a little-endian machine
LOOPBACK = {"0100007F", "0" * 24 + "01000000", "0" * 16 + "FFFF00000100007F"}


@pytest.fixture(scope="module")
def killed(home, tmp_path_factory):
    """A study whose driver is killed while it searches, and what was seen of it."""
    folder = tmp_path_factory.mktemp("studies") / "killed [1]"
    driver = Driver(
        environment_of(home), *GAUSSIAN, "--study-dir", folder, "--trials", 6, "--engines", 2,
        "--top", 1, "--final-seeds", 2, "--scheduler", "none",
    )  # fmt: skip
    try:
        driver.wait_for(folder, 2)
        pids = processes(driver.process.pid)
        heard = listening(pids)
    finally:
        driver.process.kill()
    out, _ = driver.process.communicate()
    until, left = time.monotonic() + 20, pids
    while [name for p in left if (name := name_of(p)) not in PATIENT] and time.monotonic() < until:
        left = [p for p in pids if name_of(p)]
        time.sleep(0.1)
    stayed = [name for p in left if (name := name_of(p)) and name not in PATIENT]
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return folder, heard, stayed, out


@pytest.fixture(scope="module")
def completed(killed, home):
    """The same study, gone on with to its end: its rows before and after, and what was printed."""
    folder, *_ = killed
    with store.Record(folder, settings.read(folder).name) as record:
        before = record.trials()
    return folder, before, Driver(environment_of(home), "--resume", folder, "--engines", 2).end()


def test_nothing_listens_beyond_loopback_and_nothing_outlives_a_killed_driver(killed, home):
    folder, heard, stayed, out = killed
    if Path("/proc/net/tcp").exists():
        assert heard and heard <= LOOPBACK
    assert stayed == []
    assert (home / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
    assert f"study {folder}" in out and "dashboard http://127.0.0.1:" in out


def test_a_killed_study_goes_on_to_the_exact_number(completed):
    folder, before, out = completed
    rows = check(folder, 6)
    assert len(before) >= 2
    for row in before:  # not run again
        assert rows.finished[row["trial_id"]] == row["finished"]
    assert Counter(rows.status) == {"completed": 6}
    assert "Final comparison" in out and "winner" in out and "joint (ceiling)" in out
    assert "Best: " in out and str(folder / "best.yaml") in out
    assert len(list((folder / "tensorboard").iterdir())) == 6
    best = yaml.safe_load((folder / "best.yaml").read_text())
    assert (
        best["test_opened"] == 1 and best["comparison"]["winner"]["test_joint_accuracy"]["n"] == 2
    )


@pytest.mark.slow
def test_reproducible_is_the_same_twice_through_an_interrupt_and_more_trials(cluster, tmp_path):
    env, address = cluster
    typed = (*GAUSSIAN, "--reproducible", "--engines", 2, "--top", 1, "--final-seeds", 1, *address)
    out = Driver(env, *typed, "--trials", 10, "--quiet", "--study-dir", tmp_path / "a").end()
    assert out.splitlines()[0].strip() == "Final comparison"
    first = check(tmp_path / "a", 10)

    folder = tmp_path / "b"
    driver = Driver(env, *typed, "--trials", 8, "--study-dir", folder)
    driver.wait_for(folder, 5)
    os.killpg(driver.process.pid, signal.SIGINT)  # as a terminal does
    said = driver.end(130)
    assert said.endswith(
        "interrupted; what is done is saved. Go on with:\n"
        f"  python run_search.py --resume {folder}\n"
    )
    done = searched(folder)
    assert 5 <= len(done) < 8
    Driver(env, "--resume", folder, "--trials", 10, *address, "--engines", 2).end()
    again = check(folder, 10)
    assert again.finished[done.index].equals(done.finished)  # not run again

    apart = ["study", "seconds", "started", "finished"]
    pd.testing.assert_frame_equal(again.drop(columns=apart), first.drop(columns=apart))
