"""Reading a record: by others' libraries, of earlier and later schemas, and what is damaged."""

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

import analysis
from analysis import schema
from analysis.log import RecordError
from analysis.reading import load, matrix, read
from analysis.store import Record
from tests.analysis.test_store import COLUMNS, EXAMPLES, FILES, ROWS, learn


def test_readers_need_nothing_of_ours(tmp_path):
    with Record(tmp_path, "s") as record:
        learn(record, 0)
        record.finish(0, {"lr": 0.1}, **COLUMNS)
    for file, rows in zip(FILES, [1, 6, 3, 12], strict=True):
        by_duckdb = duckdb.read_parquet(str(tmp_path / file))
        by_pandas = pd.read_parquet(tmp_path / file)
        assert len(by_duckdb.fetchall()) == len(by_pandas) == rows
        assert list(by_duckdb.columns) == list(by_pandas.columns)
    query = f"""select "config.lr" from read_parquet('{tmp_path}/trials.parquet')"""
    assert duckdb.sql(query).fetchall() == [(0.1,)]


def test_empty_record_is_readable(tmp_path):
    with Record(tmp_path, "s"):
        assert [len(table) for table in read(tmp_path)] == [0, 0, 0, 0]
        assert duckdb.read_parquet(str(tmp_path / "trials.parquet")).fetchall() == []


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(RecordError, match=r"no record in .*trials.parquet is missing"):
        read(tmp_path)
    Record(tmp_path, "s").close()
    (tmp_path / "losses.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(RecordError, match=r"losses.parquet cannot be read .*--resume"):
        read(tmp_path)


def test_a_record_of_schema_1_is_read_and_gone_on_with(tmp_path, monkeypatch):
    """It has no quality.parquet, and no quality in its log."""
    with monkeypatch.context() as patch:
        patch.setattr(schema, "SCHEMA_VERSION", 1)
        with Record(tmp_path, "s") as record:
            for t, row in enumerate(ROWS):
                record.task(0, 7, t, {"validation": row}, {"validation": EXAMPLES[: t + 1]})
            record.finish(0, {}, **COLUMNS)
    log, new = tmp_path / "log.jsonl", tmp_path / "quality.parquet"
    log.write_bytes(log.read_bytes().replace(b', "quality": {}', b""))
    assert b"quality" not in log.read_bytes()
    new.unlink()
    old = read(tmp_path)
    assert len(old.accuracy) == 6 and old.quality.empty
    assert list(old.quality) == [column.name for column in schema.QUALITY]

    with Record(tmp_path, "s") as record:
        assert record.rows(0) == ROWS and record.quality(0, 0) == {}
        learn(record, 1)
    assert read(tmp_path).quality.trial_id.tolist() == [1] * 12
    new.unlink()  # of this schema, it has to be there
    with pytest.raises(RecordError, match=r"no record in .*quality.parquet is missing"):
        read(tmp_path)


def test_newer_schema_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(schema, "SCHEMA_VERSION", 3)
        Record(tmp_path, "s").close()
    with pytest.raises(RecordError, match=r"schema 3, this one reads up to 2\): upgrade"):
        read(tmp_path)
    with pytest.raises(RecordError, match=r"log.jsonl was written by a newer lgm-search"):
        Record(tmp_path, "s")


def test_matrix_of_an_unknown_trial(tmp_path):
    Record(tmp_path, "s").close()
    with pytest.raises(ValueError, match="trial 5 has no accuracy on the test split"):
        matrix(read(tmp_path).accuracy, 5, "test")


def test_a_study_is_read_whole_by_one_call(tmp_path):
    with Record(tmp_path, "s") as record:
        learn(record, 0)
        record.finish(0, {"lr": 0.1}, **COLUMNS)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({"name": "s", "sampler": "tpe"}))
    study = analysis.load(str(tmp_path))
    assert isinstance(study, analysis.Study) and study.best is None
    assert (study.directory, study.name, study.settings["sampler"]) == (tmp_path, "s", "tpe")
    assert [len(t) for t in study[4:]] == [1, 6, 3, 12]
    (tmp_path / "best.yaml").write_text(yaml.safe_dump({"trial": 0, "config": {"lr": 0.1}}))
    assert load(tmp_path).best == {"trial": 0, "config": {"lr": 0.1}}
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = analysis.lod


def test_columns_that_an_older_record_lacks_are_null(tmp_path):
    with Record(tmp_path, "s") as record:
        record.finish(0, {}, **COLUMNS)
    path = tmp_path / "trials.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["finished", "attributes", "lanes"]), path)
    trials = read(tmp_path).trials
    assert trials[["finished", "attributes", "lanes"]].isna().all(axis=None)
    assert trials.finished.dtype.kind == "M"
    pq.write_table(table.drop_columns(["status"]), path)
    with pytest.raises(RecordError, match=r"trials.parquet is no record of a study: .* no status"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"no study in .* name the folder that a search printed"),
        ({"comparison.yaml": "studies: []"}, "in folders of it: name one of them"),
        ({"study.yaml": "[1, 2]"}, "study.yaml is not the settings of a study"),
        ({"study.yaml": "a: [1"}, "study.yaml cannot be read"),
        ({"study.yaml": "name: s"}, "trials.parquet is missing"),
    ],
)
def test_what_is_no_study_is_refused_in_one_line(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(RecordError, match=message) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)
