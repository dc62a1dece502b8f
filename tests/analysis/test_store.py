"""The record: what goes in comes out, whatever happens to its writer."""

import errno
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from analysis import schema
from analysis.log import RecordError
from analysis.reading import matrix, read
from analysis.store import Record
from trainables.engine import metrics

FILES = [f"{name}.parquet" for name in schema.TABLES]
EXAMPLES = [10, 30, 60]
ROWS = [[0.8], [0.9, 0.7], [0.5, 0.6, 1.0]]
COLUMNS = {
    "role": "search",
    "method": "lgm_acgan",
    "benchmark": "split_digits",
    "scenario": "class",
    "protocol": "end_of_stream",
    "seed": 7,
    "status": "completed",
    "tasks_learned": 3,
}


def learn(record, trial_id, tasks=3, seed=7, split="validation"):
    for t in range(tasks):
        quality = {split: {"cas": ROWS[t], "reconstruction_error": [0.5 + t] * (t + 1)}}
        examples, losses = {split: EXAMPLES[: t + 1]}, {"ce": 1.5 - t}
        record.task(trial_id, seed, t, {split: ROWS[t]}, examples, losses, quality)


def test_round_trip(tmp_path):
    began = datetime(2026, 11, 20, 13, 0, tzinfo=UTC)
    reported = COLUMNS | {
        "score": np.float32(0.5),
        "metric": "joint_accuracy",
        "seconds": 2.5,
        "memory_bytes": np.int64(4096),
        "lanes": 8,
        "versions": {"torch": "2.13", "python": "3.11"},
        "embedder": "identity",
        "attributes": "none",
        "class_order_seed": 2**62 + 1,
        "started": began,
        "seed": 2**63 - 1,
    }
    with Record(tmp_path / "runs" / "s", "s") as record:
        learn(record, 0, seed=2**63 - 1)
        record.finish(0, {"lr": 0.1}, **reported)
    tables = read(tmp_path / "runs" / "s")

    (row,) = tables.trials.to_dict("records")
    expected = {"study": "s", "trial_id": 0, "config.lr": 0.1, "started": pd.Timestamp(began)}
    expected |= {"versions": '{"python": "3.11", "torch": "2.13"}'}
    assert {name: row[name] for name in reported | expected} == reported | expected
    assert list(row) == [c.name for c in schema.TRIALS] + ["config.lr"]
    assert pd.isna(row["reason"])
    assert pd.isna(row["finished"])

    assert len(tables.accuracy) == 6
    last = {"trial_id": 0, "seed": 2**63 - 1, "split": "validation", "after_task": 2, "on_task": 1}
    last |= {"accuracy": 0.6, "examples": 30}
    assert tables.accuracy.to_dict("records")[4] == last
    assert tables.losses.to_dict("records")[2] == {
        "trial_id": 0,
        "task": 2,
        "term": "ce",
        "value": -0.5,
    }
    assert len(tables.quality) == 12
    last = {"trial_id": 0, "seed": 2**63 - 1, "split": "validation", "after_task": 2, "on_task": 1}
    cas, error = tables.quality.to_dict("records")[7::3]
    assert cas == last | {"measure": "cas", "value": 0.6}
    assert error == last | {"measure": "reconstruction_error", "value": 2.5}


def test_schema_travels_with_the_files(tmp_path):
    Record(tmp_path, "s").close()
    for name, columns in schema.TABLES.items():
        written = pq.read_schema(tmp_path / f"{name}.parquet")
        assert written.metadata[schema.VERSION_KEY] == b"2"
        for column in columns:
            field = written.field(column.name)
            assert field.type == column.type
            assert field.nullable is not column.required
            assert field.metadata[b"description"].decode() == column.description != ""


def test_metrics_are_those_of_the_accuracy_matrix(tmp_path):
    a = np.random.default_rng(0).random((4, 3, 3))
    with Record(tmp_path, "s") as record:
        for trial_id, tasks in enumerate([3, 2, 1, 3]):
            for t in range(tasks):
                row = {"validation": a[trial_id, t, : t + 1]}
                record.task(trial_id, 7, t, row, {"validation": EXAMPLES[: t + 1]})
            record.finish(trial_id, {}, **COLUMNS | {"tasks_learned": tasks})
    tables = read(tmp_path)
    for row in tables.trials.itertuples():
        one, examples = matrix(tables.accuracy, row.trial_id)
        assert one.shape == (row.tasks_learned, row.tasks_learned)
        assert row.joint_accuracy == metrics.joint_accuracy(one, examples)
        assert row.average_accuracy == metrics.average_accuracy(one)
        assert row.learning_accuracy == metrics.learning_accuracy(one)
        if row.tasks_learned > 1:
            assert row.forgetting == metrics.forgetting(one)
            assert row.backward_transfer == metrics.backward_transfer(one)
        else:
            assert np.isnan(row.forgetting)
            assert np.isnan(row.backward_transfer)


def test_trial_that_learned_nothing_has_nulls(tmp_path):
    failed = COLUMNS | {"status": "failed", "reason": "ce became nan", "tasks_learned": 0}
    with Record(tmp_path, "s") as record:
        record.task(0, 7, 0, {}, {}, {"ce": np.nan, "gp": np.inf, "g": -np.inf})
        record.finish(0, {}, score=np.nan, **failed)
    with Record(tmp_path, "s"):  # through the log once more
        tables = read(tmp_path)
    derived = [c.name for c in schema.TRIALS if c.derived]
    assert tables.trials.loc[0, ["score", *derived]].isna().all()
    assert pq.read_table(tmp_path / "trials.parquet")["score"].null_count == 1
    np.testing.assert_array_equal(tables.losses.value, [np.nan, np.inf, -np.inf])
    assert b"NaN" not in (tmp_path / "log.jsonl").read_bytes()


def test_config_columns_have_the_narrowest_type(tmp_path):
    configs = [
        {"lr": 1, "width": 64, "reset": True, "order": ["a", "b"], "mixed": "auto"},
        {"lr": 0.5, "width": 128, "gamma": 0.9, "mixed": 3, "unused": None},
        {"lr": 2, "reset": False, "mixed": np.inf},
    ]
    with Record(tmp_path, "s") as record:
        for trial_id, config in enumerate(configs):
            record.finish(trial_id, config, **COLUMNS)
        assert record.trials()[0]["config"] == configs[0]
    table = pq.read_table(tmp_path / "trials.parquet")
    named = {
        name.removeprefix("config."): (str(table.schema.field(name).type), table[name].to_pylist())
        for name in table.column_names
        if name.startswith("config.")
    }
    assert named == {
        "gamma": ("double", [None, 0.9, None]),
        "lr": ("double", [1.0, 0.5, 2.0]),
        "mixed": ("string", ["auto", "3", "Infinity"]),
        "order": ("string", ['["a", "b"]', None, None]),
        "reset": ("bool", [True, None, False]),
        "unused": ("string", [None, None, None]),
        "width": ("int64", [64, 128, None]),
    }
    assert list(named) == sorted(named)


def test_what_was_reported_last_holds(tmp_path):
    with Record(tmp_path, "s") as record:
        learn(record, 0)
        record.task(0, 7, 1, {"validation": [0.1, 0.2]}, {"validation": [10, 30]}, {"ce": 9.0},
                    {"validation": {"cas": [0.3, 0.4]}})  # fmt: skip
        record.finish(0, {}, **COLUMNS, score=0.1)
        record.finish(0, {}, **COLUMNS, score=0.2)
    tables = read(tmp_path)
    assert tables.trials.score.tolist() == [0.2]
    assert tables.accuracy.accuracy.tolist() == [0.8, 0.1, 0.2, 0.5, 0.6, 1.0]
    assert tables.losses.value.tolist() == [1.5, 9.0, -0.5]
    cas = tables.quality[tables.quality.measure == "cas"]
    assert cas.value.tolist() == [0.8, 0.3, 0.4, 0.5, 0.6, 1.0]


def test_test_split_comes_later_and_stands_beside(tmp_path):
    final = schema.FIRST_FINAL
    with Record(tmp_path, "s") as record:
        learn(record, final)
        record.finish(final, {}, **COLUMNS | {"role": "final", "label": "default"})
        for t, row in enumerate(ROWS):
            quality = {"test": {"cas": row}}
            record.task(final, 7, t, {"test": row}, {"test": EXAMPLES[: t + 1]}, quality=quality)
        assert record.rows(final) == record.rows(final, "test") == ROWS
        assert record.quality(final, 1, "test") == {"cas": ROWS[1]}
        assert record.quality(final, 1)["cas"] == ROWS[1]
        assert record.quality(final, 3) == record.quality(5, 0) == {}
    tables = read(tmp_path)
    assert tables.accuracy.split.value_counts().to_dict() == {"validation": 6, "test": 6}
    assert tables.quality.split.value_counts().to_dict() == {"validation": 12, "test": 6}
    np.testing.assert_array_equal(*(matrix(tables.accuracy, final, s)[0] for s in schema.SPLITS))
    assert len(tables.losses) == 3


def test_tasks_beyond_those_learned_do_not_count(tmp_path):
    """A trial that a crash took further than the checkpoint it went on from, and that stopped."""
    with Record(tmp_path, "s") as record:
        learn(record, 0)
        record.finish(0, {}, **COLUMNS | {"status": "stopped", "tasks_learned": 2})
        assert record.rows(0) == ROWS[:2]
        record.flush()
        assert (len(read(tmp_path).accuracy), len(read(tmp_path).quality)) == (3, 6)
        record.finish(0, {}, **COLUMNS)
        assert record.rows(0) == ROWS


def test_another_seed_is_another_walk(tmp_path):
    with Record(tmp_path, "s") as record:
        learn(record, 0, tasks=3, seed=1)
        learn(record, 0, tasks=1, seed=2)
        assert record.rows(0) == ROWS[:1]
    assert read(tmp_path).accuracy.seed.tolist() == [2]


def test_reopening_goes_on(tmp_path):
    with Record(tmp_path, "s") as record:
        learn(record, 0)
        record.finish(0, {"lr": 0.1}, **COLUMNS, started=datetime.now(UTC))
        learn(record, 1, tasks=2)
        trials = record.trials()
    for file in FILES:  # functions of the log
        (tmp_path / file).unlink()
    with Record(tmp_path, "s") as record:
        assert record.trials() == trials
        assert record.rows(1) == ROWS[:2]
        assert record.rows(2) == []
        assert (len(read(tmp_path).accuracy), len(read(tmp_path).quality)) == (9, 18)
        record.finish(1, {}, **COLUMNS | {"tasks_learned": 2})
    assert read(tmp_path).trials.trial_id.tolist() == [0, 1]


@pytest.mark.parametrize("torn", [b'{"event": "finish", "tri', b"\0" * 50])
def test_torn_last_line_is_dropped(tmp_path, torn):
    with Record(tmp_path, "s") as record:
        learn(record, 0, tasks=1)
    log = tmp_path / "log.jsonl"
    log.write_bytes(log.read_bytes() + torn)
    with Record(tmp_path, "s") as record:
        learn(record, 1, tasks=1)
    assert torn not in log.read_bytes()
    assert read(tmp_path).accuracy.trial_id.tolist() == [0, 1]


def test_order_of_keys_in_the_log_is_free(tmp_path):
    Record(tmp_path, "s").close()
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write(
            '{"losses": {}, "examples": {"validation": [5]}, "task": 0, "trial_id": 3, "seed": 1,'
            ' "accuracy": {"validation": [0.25]}, "event": "task"}\n'
        )
    with Record(tmp_path, "s") as record:
        assert record.rows(3) == [[0.25]]


WRITER = """
import sys
from analysis.store import Record
from tests.analysis.test_store import COLUMNS, learn

with Record(sys.argv[1], "s") as record:
    for trial_id in range(len(record.trials()), 1_000_000):
        learn(record, trial_id)
        record.finish(trial_id, {"lr": 0.1}, **COLUMNS)
        print(trial_id, flush=True)  # acknowledged: must never be lost
        record.flush()
"""


def test_killed_writer_loses_nothing(tmp_path):
    root = Path(__file__).parents[2]
    acknowledged = -1
    for wait_for in (1, 40):  # the second writer goes on where the first was killed
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as writer:
            assert writer.stdout is not None
            for _ in range(wait_for):
                acknowledged = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            acknowledged = max([acknowledged, *map(int, writer.stdout.read().split())])

        left = read(tmp_path)  # valid as the killed writer left them
        assert left.trials.trial_id.tolist() == list(range(len(left.trials)))
        assert set(left.trials.trial_id) <= set(left.accuracy.trial_id)
        assert (left.accuracy.groupby("trial_id").size()[left.trials.trial_id] == 6).all()
        assert (left.quality.groupby("trial_id").size()[left.trials.trial_id] == 12).all()

    with Record(tmp_path, "s") as record:
        finished = [trial["trial_id"] for trial in record.trials()]
        assert finished == list(range(len(finished)))
        assert len(finished) > acknowledged >= 40
        assert all(record.rows(trial_id) == ROWS for trial_id in finished)
    assert read(tmp_path).trials.trial_id.tolist() == finished


class FullDisk:
    """A file on a disk with room for ``room`` bytes more."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self.file.write(data[: self.room])
        self.room -= written
        return written

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_disk_full_under_the_log(tmp_path):
    record = Record(tmp_path, "s")
    learn(record, 0, tasks=2)
    record.flush()
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    record._log._file = FullDisk(record._log._file, room=20)
    with pytest.raises(RecordError, match=r"No space left.*free space.*--resume"):
        record.finish(0, {}, **COLUMNS)
    record.close()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    with Record(tmp_path, "s") as record:
        assert record.rows(0) == ROWS[:2]


def test_disk_full_under_a_parquet_file(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Record(tmp_path, "s", interval=1000) as record:
        before = {file: (tmp_path / file).read_bytes() for file in FILES}
        learn(record, 0)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(RecordError, match=r"losses.parquet \(No space left.*free space"):
                record.flush()
        assert {file.name for file in tmp_path.iterdir()} == {*FILES, "log.jsonl"}
        assert {file: (tmp_path / file).read_bytes() for file in FILES} == before
    assert len(read(tmp_path).accuracy) == 6  # there was space again


def test_parquet_is_rebuilt_now_and_then(tmp_path):
    with Record(tmp_path, "s", interval=1000) as record:
        learn(record, 0)
        record.flush_if_due()
        assert read(tmp_path).accuracy.empty
    with Record(tmp_path, "s", interval=0) as record:
        record._next_rebuild = 0
        learn(record, 1, tasks=1)
        assert len(read(tmp_path).accuracy) == 7


@pytest.mark.parametrize(
    ("task", "accuracy", "examples", "message"),
    [
        (1, {"validation": [0.5]}, {"validation": [10]}, "expected 2 accuracies"),
        (0, {"validation": [0.5]}, {"validation": [10, 30]}, "got 1 and 2"),
        (0, {"train": [0.5]}, {"train": [10]}, "expected splits of"),
        (0, {"validation": [0.5]}, {}, "the same in accuracy and examples"),
        (0, {"validation": [87.0]}, {"validation": [10]}, "expected fractions"),
        (0, {"validation": [np.nan]}, {"validation": [10]}, "expected fractions"),
        (0, {"validation": [0.5]}, {"validation": [0]}, "of > 0 examples"),
        (-1, {}, {}, "task as ints >= 0"),
    ],
)
def test_impossible_report_is_refused_and_not_written(tmp_path, task, accuracy, examples, message):
    with Record(tmp_path, "s") as record:
        before = (tmp_path / "log.jsonl").read_bytes()
        with pytest.raises(ValueError, match=message):
            record.task(0, 7, task, accuracy, examples)
        with pytest.raises(ValueError, match="numbers as losses"):
            record.task(0, 7, 0, {}, {}, {"ce": "low"})  # pyright: ignore
        for row in ([0.5, 0.5], [], ["low"]):
            with pytest.raises(ValueError, match=r"expected 1 numbers as cas after task 0"):
                given: dict = {"validation": {"cas": row}}
                record.task(0, 7, 0, {"validation": [1.0]}, {"validation": [10]}, quality=given)
        with pytest.raises(ValueError, match=r"expected quality on splits of \[\], got \['test'\]"):
            record.task(0, 7, 0, {}, {}, quality={"test": {"cas": [1.0]}})
        assert (tmp_path / "log.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"scores": 0.5}, "no column 'scores': did you mean 'score'"),
        ({"forgetting": 0.1}, "no column 'forgetting'"),
        ({"method": None}, "a value in column 'method'"),
        ({"status": "done"}, "one of .*completed.* in column 'status', got 'done'"),
        ({"score": "high"}, "a value of double in column 'score', got 'high'"),
        ({"lanes": 1.5}, "a value of int64 in column 'lanes', got 1.5"),
        ({"tasks_learned": -1}, "tasks_learned as ints >= 0"),
        ({"started": datetime(2026, 11, 20)}, "column 'started'"),  # without a time zone
    ],
)
def test_impossible_trial_is_refused_and_not_written(tmp_path, columns, message):
    with Record(tmp_path, "s") as record:
        before = (tmp_path / "log.jsonl").read_bytes()
        with pytest.raises(ValueError, match=message):
            record.finish(0, {}, **COLUMNS | columns)
        assert (tmp_path / "log.jsonl").read_bytes() == before


def test_directory_of_another_study_is_refused(tmp_path):
    Record(tmp_path, "one").close()
    with pytest.raises(RecordError, match="holds the study 'one', not 'two'"):
        Record(tmp_path, "two")


def test_damage_before_the_last_line_is_named(tmp_path):
    with Record(tmp_path, "s") as record:
        learn(record, 0)
    log = tmp_path / "log.jsonl"
    found = log.read_bytes().splitlines()
    log.write_bytes(b"\n".join([found[0], found[1][:9], *found[2:], b""]))
    with pytest.raises(RecordError, match=r"log.jsonl, line 2 is damaged"):
        Record(tmp_path, "s")


def test_unwritable_directory_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RecordError, match=r"cannot write .*file/s/log.jsonl"):
        Record(tmp_path / "file" / "s", "s")
