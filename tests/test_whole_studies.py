"""Whole studies through the command line: killed, interrupted, resumed, run twice."""

import contextlib
import os
import re
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

from analysis import reading
from analysis.store import Record
from trainables.engine import metrics
from trainables.ray import environment, settings
from trainables.ray.searcher import open_study

ROOT = Path(__file__).parent.parent
GAUSSIAN = ("--method", "sequential", "--benchmark", "gaussian")


def environment_of(home: Path) -> dict[str, str]:
    own = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TUNE_"))}
    own |= {"HOME": str(home), "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    return own | {"RAY_worker_niceness": "0"}  # else a busy machine starves the engines


class Driver:
    """``run_search.py``, or another command, in a process and a session of its own."""

    def __init__(self, env, *arguments, command=("run_search.py",)):
        self.process = subprocess.Popen(
            [sys.executable, *command, *map(str, arguments)],
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

    tables = reading.read(folder)
    assert not tables.accuracy.duplicated(["trial_id", "split", "after_task", "on_task"]).any()
    for number, row in tables.trials.set_index("trial_id").iterrows():
        a, examples = reading.matrix(tables.accuracy, number)
        assert len(a) == row.tasks_learned
        for name, value in metrics.summary(a, examples).items():
            if name in row:
                assert row[name] == value
    on_test = tables.accuracy[tables.accuracy.split == "test"]
    assert set(on_test.trial_id) <= set(tables.trials[tables.trials.role == "final"].trial_id)
    files = {name: str(folder / f"{name}.parquet") for name in ("trials", "accuracy", "losses")}
    measures = {"task_accuracy", "zero_shot_accuracy", "untrained_accuracy", "learning_curve_area"}
    assert set(tables.quality.measure) == measures  # no method here generates
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


ENGINE = re.compile(r"ray::(EngineActor|trial \d|final trial \d|\w+ engine, )")  # or what it runs
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
    with Record(folder, settings.read(folder).name) as record:
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


def test_a_killed_engine_costs_no_trial(home, tmp_path):
    driver = Driver(
        environment_of(home), *GAUSSIAN, "--study-dir", tmp_path / "a", "--trials", 8,
        "--engines", 2, "--lanes", 2, "--top", 1, "--final-seeds", 1, "--scheduler", "none",
    )  # fmt: skip
    driver.wait_for(tmp_path / "a", 2)
    engines = [pid for pid in processes(driver.process.pid) if ENGINE.match(name_of(pid))]
    assert len(engines) == 2
    os.kill(engines[0], signal.SIGKILL)
    out = driver.end()
    assert not ENGINE.match(name_of(engines[0]))
    rows = check(tmp_path / "a", 8)
    assert Counter(rows.status) == {"completed": 8}
    assert settings.read(tmp_path / "a").lanes == 2 and set(rows.lanes) <= {1, 2}
    assert "8 completed, 0 stopped early, 0 failed" in out and "Final comparison" in out


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_ablation_trains_what_is_missing_and_nothing_twice(cluster, tmp_path):
    env, address = cluster
    folder, ablate = tmp_path / "a", ("-m", "analysis", "ablate")
    typed = ("--method", "lgm_memory", "--benchmark", "gaussian", "--study-dir", folder)
    budget = ("--trials", 2, "--final-seeds", 1, "--top", 1, "--engines", 1, "--lanes", 2)
    Driver(env, *typed, *budget, *address).end()
    opened = yaml.safe_load((folder / "best.yaml").read_text())["test_opened"]

    begun = Driver(env, folder, "--seeds", 3, "--engines", 1, *address, command=ablate)
    begun.wait_for(folder, 2 + 4 + 1)
    os.killpg(begun.process.pid, signal.SIGINT)
    assert f"Go on with:\n  python -m analysis ablate {folder} --seeds 3" in begun.end(130)
    before = pd.read_parquet(folder / "trials.parquet").set_index("trial_id")
    out = Driver(env, folder, "--seeds", 3, "--engines", 1, *address, command=ablate).end()
    assert "Of 1 loss term of lgm_memory, 1 matters: classifier_rehearsal" in out
    assert (folder / "ablation.png").stat().st_size > 10_000

    tables = reading.read(folder)
    after = tables.trials.set_index("trial_id")
    rows = after[after.role == "ablation"]
    pd.testing.assert_series_equal(after.finished[before.index], before.finished)
    (other,) = set(rows.label) - {"winner", "classifier_rehearsal = 0"}  # its other choice
    assert other.startswith("reset_classifier = ")
    assert Counter(rows.label) == {"winner": 3, "classifier_rehearsal = 0": 3, other: 3}
    assert len({frozenset(of.seed) for _, of in rows.groupby("label")}) == 1
    assert not set(rows.seed) & set(after[after.role != "ablation"].seed)
    assert set(tables.accuracy[tables.accuracy.trial_id.isin(rows.index)].split) == {"validation"}
    assert yaml.safe_load((folder / "best.yaml").read_text())["test_opened"] == opened


@pytest.mark.slow
def test_reproducible_is_the_same_twice_through_an_interrupt_and_more_trials(cluster, tmp_path):
    env, address = cluster
    typed = (*GAUSSIAN, "--reproducible", "--engines", 2, "--top", 1, "--final-seeds", 1, *address)
    quiet = (*typed, "--trials", 10, "--lanes", 1, "--quiet")
    out = Driver(env, *quiet, "--study-dir", tmp_path / "a").end()
    assert out.splitlines()[0].strip() == "Final comparison"
    first = check(tmp_path / "a", 10)

    folder = tmp_path / "b"
    driver = Driver(env, *typed, "--trials", 8, "--lanes", 3, "--study-dir", folder)
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

    assert (settings.read(tmp_path / "a").lanes, settings.read(folder).lanes) == (1, 3)
    apart = ["study", "seconds", "started", "finished", "lanes"]  # they have no say in the numbers
    pd.testing.assert_frame_equal(again.drop(columns=apart), first.drop(columns=apart))
