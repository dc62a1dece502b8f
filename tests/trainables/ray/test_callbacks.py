"""Recorder, screen and TensorBoard, fed with the events that Tune would send."""

import io
import json
import pickle
import re
from types import SimpleNamespace

import pytest
from rich.console import Console
from tensorboardX.proto.event_pb2 import Event

from analysis.reading import read
from analysis.store import Record
from trainables.ray.recorder import Recorder, checkpoint_file, status_of
from trainables.ray.screen import Screen, clock
from trainables.ray.tensorboard import TensorBoard

TASKS = 3
EXAMPLES = [10, 20, 30]
COLUMNS = {
    "method": "m", "benchmark": "b", "scenario": "class", "protocol": "p", "embedder": "identity",
    "class_order_seed": 0, "versions": {"torch": "2"}, "commit": None,
}  # fmt: skip
WHY = "stopped after task 2: 0.1 < cutoff 0.2 (6 of 6)"


def trial_of(number, folder="."):
    config = {"number": number, "hyper": {"lr": 0.1 + number}, "checkpoints": str(folder)}
    return SimpleNamespace(config=config, last_result=None)


def report(tasks, done=False, seed=7, **more):
    rows = [[0.5 + 0.1 * i] * (i + 1) for i in range(tasks)]
    losses = [{"ce": 1.0 - 0.1 * i} for i in range(tasks)]
    quality = [{"cas": row} for row in rows]
    return {
        "tasks_learned": tasks, "seed": seed, "seconds": 2.0 * tasks, "memory_bytes": 8,
        "joint_accuracy": 0.4 + 0.1 * tasks,
        "history": json.dumps({"accuracy": rows, "quality": quality, "losses": losses}),
        "acc/task_00": 0.5, "loss/ce": 0.9, "done": done, "training_iteration": 9, "pid": 3,
    } | more  # fmt: skip


FAILED = {"failure": "ce became nan in task 1"}


def send(callback, trial, *reports):
    callback.on_trial_start(0, [], trial)
    for one in reports:
        callback.on_trial_result(0, [], trial, one)


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (report(3), "completed"),
        (report(2), "stopped"),
        (report(1) | FAILED, "failed"),
        (report(3) | FAILED, "failed"),
        ({"failure": "no such method", "tasks_learned": 0}, "failed"),
    ],
)
def test_status(result, status):
    assert status_of(result, TASKS) == status


# ---- recorder ------------------------------------------------------------------------------------


@pytest.fixture
def record(tmp_path):
    with Record(tmp_path, "study") as opened:
        yield opened


@pytest.fixture
def recorder(record):
    return Recorder(record, COLUMNS, EXAMPLES, "joint_accuracy", {1: WHY}.get)


def events(folder, kind):
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == kind]


def test_every_way_to_end_has_its_row(recorder, record, tmp_path):
    send(recorder, trial_of(0), report(1), report(2), report(3, done=True))
    send(recorder, trial_of(1), report(1), report(2, done=True))
    send(recorder, trial_of(2), report(1), report(1, done=True) | FAILED)
    send(recorder, trial_of(3), {"failure": "bad", "tasks_learned": 0, "done": True})
    rows = record.trials()
    ends = [(r["status"], r["reason"], r["score"], r["tasks_learned"]) for r in rows]
    assert ends == [
        ("completed", None, pytest.approx(0.7), 3),
        ("stopped", WHY, None, 2),
        ("failed", FAILED["failure"], None, 1),
        ("failed", "bad", None, 0),
    ]
    assert [r["config"] for r in rows] == [{"lr": 0.1 + n} for n in range(4)]
    assert [r["seed"] for r in rows] == [7, 7, 7, 0]
    assert all(r["started"] <= r["finished"] and r["role"] == "search" for r in rows)
    assert rows[0]["joint_accuracy"] == pytest.approx(0.7)  # of the matrix
    assert record.rows(1) == [[0.5], [0.6, 0.6]]
    record.flush()
    tables = read(tmp_path)
    assert len(tables.trials) == 4 and len(tables.accuracy) == len(tables.quality) == 6 + 3 + 1
    assert tables.quality.value.tolist() == tables.accuracy.accuracy.tolist()
    assert tables.accuracy.examples.tolist()[:6] == [10, 10, 20, 10, 20, 30]


def test_lanes_are_those_of_the_last_report(recorder, record):
    send(recorder, trial_of(0), report(1, lanes=9), report(3, done=True, lanes=4))
    send(recorder, trial_of(1), report(1, lanes=2), report(2, done=True, lanes=3))
    send(recorder, trial_of(2), {"failure": "bad", "tasks_learned": 0, "done": True})
    assert [row["lanes"] for row in record.trials()] == [4, 3, 1]


def test_each_task_is_written_once(recorder, tmp_path):
    send(recorder, trial_of(0), report(1), report(1), report(2), report(2), report(3, done=True))
    assert [e["task"] for e in events(tmp_path, "task")] == [0, 1, 2]
    assert len(events(tmp_path, "finish")) == 1


def test_tasks_that_were_learned_but_not_written_are_filled_in(recorder, record, tmp_path):
    send(recorder, trial_of(0), report(1))
    send(recorder, trial_of(0), report(3, done=True))  # after a kill
    assert record.rows(0) == [[0.5], [0.6] * 2, [0.7] * 3]
    assert [e["losses"]["ce"] for e in events(tmp_path, "task")] == [1.0, 0.9, 0.8]


def test_a_checkpoint_goes_with_its_trial(recorder, tmp_path):
    file, other = checkpoint_file(tmp_path, 0), checkpoint_file(tmp_path, 1)
    file.touch(), other.touch()
    send(recorder, trial_of(0, tmp_path), report(1), report(2))
    assert file.exists()
    send(recorder, trial_of(0, tmp_path), report(3, done=True))
    assert not file.exists() and other.exists()


def test_a_trial_whose_process_died_has_failed(recorder, record):
    heard, unheard = trial_of(0), trial_of(1)
    send(recorder, heard, report(1), report(2))
    heard.last_result = report(2)
    recorder.on_trial_error(0, [], heard)
    recorder.on_trial_error(0, [], unheard)
    ends = [(r["status"], r["tasks_learned"], r["seconds"], r["reason"]) for r in record.trials()]
    reason = "its process died again and again"
    assert ends == [("failed", 2, 4.0, reason), ("failed", 0, None, reason)]


# ---- screen --------------------------------------------------------------------------------------


def shown(level="normal", terminal=False, finished=(), footer=("study runs/[x]",), stop=True):
    """A screen with one trial of every kind, and what it printed."""
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=terminal, width=100, highlight=False, color_system=None
    )
    screen = Screen(
        console, "m on b", list(footer), 6, TASKS, "joint_accuracy", list(finished), level
    )
    with screen:
        send(screen, trial_of(2), report(1), report(2), report(3, done=True))
        send(screen, trial_of(3), report(2, done=True))
        send(screen, trial_of(4), report(1, done=True) | FAILED)
        send(screen, trial_of(5), report(1))
        if not stop:
            return screen, out.getvalue()
    return screen, out.getvalue()


EARLIER = (
    {"status": "completed", "score": 0.9, "trial_id": 0},
    {"status": "stopped", "score": None, "trial_id": 1},
)


def test_plain_lines():
    screen, text = shown()
    lines = text.splitlines()
    assert lines[:2] == ["m on b", "study runs/[x]"]
    assert "\x1b" not in text
    assert re.fullmatch(
        r"1/6 trials  1 completed, 0 stopped early, 0 failed  0:00 elapsed, about 0:00 left  "
        r"best: joint accuracy 70\.0% \(trial 2, validation\)",
        lines[2],
    )
    assert lines[3] == "trial 4 failed: ce became nan in task 1"
    assert lines[-1].startswith("3/6 trials  1 completed, 1 stopped early, 1 failed  ")
    assert len(lines) == 5
    assert screen.running == {5: 1} and screen.done == 3


def test_verbose_has_a_line_for_every_trial():
    _, text = shown("verbose")
    assert "trial 2 completed, 70.0% after task 3\n" in text
    assert "trial 3 stopped, 60.0% after task 2\n" in text
    assert "trial 4 failed, 50.0% after task 1: ce became nan in task 1\n" in text


UNSAVED = {"unsaved": "cannot write checkpoint /c/[x]: disk full"}
NARROWED = {"narrowed": "out of memory: packs are at most 4 lanes wide from now on"}


def warned(level="normal", terminal=False):
    """What is printed where no checkpoint can be written and packs are narrowed, twice."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=60, color_system=None)
    narrower = {"narrowed": NARROWED["narrowed"].replace("4", "2")}
    with Screen(console, "m on b", [], 6, TASKS, "joint_accuracy", [], level) as screen:
        send(screen, trial_of(0), report(1) | UNSAVED, report(2) | UNSAVED | NARROWED)
        other = {"unsaved": "cannot write checkpoint /c/other"}
        send(screen, trial_of(1), report(1) | NARROWED, report(2) | other | narrower)
    return out.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("level", ["normal", "verbose"])
def test_a_warning_is_said_once(level, terminal):
    text = warned(level, terminal)
    said = "cannot write checkpoint /c/[x]: disk full: after a crash its trial starts further back"
    assert text.count(said) == text.count("cannot write checkpoint") == 1
    assert text.count(NARROWED["narrowed"]) == 1
    assert text.count("out of memory: packs are at most 2 lanes wide from now on") == 1


@pytest.mark.parametrize("terminal", [False, True])
def test_quiet_prints_nothing(terminal):
    assert shown("quiet", terminal)[1] == warned("quiet", terminal) == ""


def test_a_terminal_has_a_table():
    _, text = shown(terminal=True)
    table = text[text.rindex("m on b") :]
    for line in ("3/6 trials", "trial 5 (task 2/3)", "1 completed, 1 stopped early, 1 failed",
                 "joint accuracy 70.0% (trial 2, validation)", "runs/[x]"):  # fmt: skip
        assert line in table
    assert "trial 4 failed: ce became nan in task 1" in text


def test_earlier_runs_of_the_study_count():
    screen, text = shown(finished=EARLIER)
    assert "5/6 trials  2 completed, 2 stopped early, 1 failed" in text
    assert screen.best == (0.9, 0) and "joint accuracy 90.0% (trial 0, validation)" in text


def test_an_empty_search_shows_that_nothing_has_ended():
    out = io.StringIO()
    with Screen(Console(file=out), "m on b", [], 6, TASKS, "joint_accuracy", []):
        pass
    assert out.getvalue().splitlines()[-1].endswith("no trial has completed yet")


def test_many_running_trials_fit_on_the_screen():
    out = io.StringIO()
    screen = Screen(Console(file=out, width=200), "m on b", [], 99, TASKS, "joint_accuracy", [])
    for number in range(20):
        screen.on_trial_start(0, [], trial_of(number))
    screen.console.print(screen.table())
    assert "7 (task 1/3) and 12 more" in out.getvalue()


def test_a_dead_process_is_shown_as_failed():
    out = io.StringIO()
    screen = Screen(Console(file=out), "m on b", [], 6, TASKS, "joint_accuracy", [])
    screen.on_trial_start(0, [], trial_of(0))
    screen.on_trial_error(0, [], trial_of(0))
    assert "trial 0 failed: its process died" in out.getvalue()
    assert screen.running == {} and screen.counts["failed"] == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (86399, "23:59:59")],
)
def test_clock(seconds, text):
    assert clock(seconds) == text


# ---- TensorBoard ---------------------------------------------------------------------------------


def scalars(folder):
    """(name, step) -> value of a file of length, checksum, event, checksum; and so on."""
    (file,) = folder.iterdir()
    content, found = file.read_bytes(), {}
    while content:
        size = int.from_bytes(content[:8], "little")
        event = Event.FromString(content[12 : 12 + size])
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        content = content[16 + size :]
    return found


def test_tensorboard_holds_the_scalars_of_each_task(tmp_path):
    board = TensorBoard(tmp_path)
    send(board, trial_of(0), report(1), report(2))
    assert not list(tmp_path.iterdir())
    send(board, trial_of(0), report(3, done=True))
    lost = {"failure": "bad", "tasks_learned": 0, "loss/ce": float("nan"), "done": True}
    send(board, trial_of(12), lost)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["trial_000000", "trial_000012"]
    found = scalars(tmp_path / "trial_000000")
    tags = {"joint_accuracy", "seconds", "memory_bytes", "acc/task_00", "loss/ce"}
    assert set(found) == {(tag, step) for tag in tags for step in (1, 2, 3)}
    assert found["joint_accuracy", 2] == pytest.approx(0.6)
    assert not scalars(tmp_path / "trial_000012")
    assert not board.reports


def test_callbacks_are_pickled_without_what_they_hold(recorder, tmp_path):
    """Tune pickles its callbacks; files and terminals cannot be."""
    with Screen(Console(), "t", [], 6, TASKS, "joint_accuracy", [], "quiet") as screen:
        for callback in (recorder, screen):
            assert pickle.loads(pickle.dumps(callback)).__dict__ == {}
