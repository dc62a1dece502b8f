"""The notebooks: executed on made-up studies, one after the other in one kernel."""

import json
import os
import re
from pathlib import Path

import nbformat
import numpy as np
import pyarrow.parquet as pq
import pytest
from nbclient import NotebookClient
from nbformat import v4
from safetensors.numpy import save_file

from analysis import load, schema
from tests.analysis import made_up

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "analysis" / "notebooks").glob("*.ipynb"))
BOOKS = {file.stem: nbformat.read(file, 4) for file in FILES}
FIGURE = "application/vnd.plotly.v1+json"
TASKS = 3


def add_samples(folder):
    """Let the winner and the default of a made-up study have generated: a class a task."""
    trials = load(folder).trials.query("label in ['trial 1', 'default']")
    after, on = np.tril_indices(TASKS)
    rows = [
        (trial, seed, "validation", i, j, measure, 0.9 - 0.1 * (i - j))
        for trial, seed in zip(trials.trial_id, trials.seed, strict=True)
        for i, j in zip(after, on, strict=True)
        for measure in ("cas", "nearest_distance")
    ]
    names = [column.name for column in schema.QUALITY]
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    pq.write_table(schema.table(schema.QUALITY, columns), folder / "quality.parquet")
    rng, y = np.random.default_rng(0), np.repeat(np.arange(TASKS), 4)
    tensors = {}
    for name, known in [("real", TASKS), *((f"task_{t:02d}", t + 1) for t in range(TASKS))]:
        kept = y[y < known]
        x = np.tile((kept - 1.0)[:, None, None, None], (1, 1, 4, 4))
        tensors[f"{name}.x"] = (x + 0.1 * rng.normal(size=x.shape)).astype(np.float32)
        tensors[f"{name}.y"] = kept
    (folder / "generated").mkdir()
    for trial in trials.groupby("label").trial_id.min():
        file = folder / "generated" / f"{trial}.safetensors"
        save_file(tensors, file, {"class_names": json.dumps(["ant", "bee", "cow"])})


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Name -> cells with their outputs. A kernel takes seconds to start, so all share one."""
    root = tmp_path_factory.mktemp("runs")
    runs = [root / name for name in ("a", "b", "c")]
    for seed, run in enumerate(runs):
        made_up.study(run, 40, TASKS, seed=seed)
    add_samples(runs[0])
    cells, place = [], {}
    for name, book in BOOKS.items():
        cells.append(v4.new_code_cell("%reset -f"))
        place[name] = slice(len(cells), len(cells) + len(book.cells))
        cells += book.cells
    whole = v4.new_notebook(cells=[nbformat.from_dict(dict(cell)) for cell in cells])
    said = {
        "RUN": str(runs[0]),
        "RUNS": os.pathsep.join(map(str, runs)),
        "PLOTLY_RENDERER": "plotly_mimetype",
        "PYTHONPATH": str(ROOT),
    }
    NotebookClient(whole, timeout=200, allow_errors=True).execute(env=os.environ | said)
    return {name: whole.cells[where] for name, where in place.items()}


def code(cells):
    return [cell for cell in cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", BOOKS)
def test_every_cell_runs(executed, name):
    for cell in code(executed[name]):
        failed = [one for one in cell.outputs if one.output_type == "error"]
        assert not failed, f"{cell.source}\n{failed[0].evalue}"


@pytest.mark.parametrize("name", BOOKS)
def test_every_cell_that_draws_shows_what_stands_behind_it(executed, name):
    own = code(executed[name])
    drawing = [cell for cell in own if re.search(r"figures?\w*\.\w+\(", cell.source)]
    assert len(drawing) >= 2
    for cell in drawing:
        drawn = [one.data[FIGURE] for one in cell.outputs if FIGURE in one.get("data", {})]
        assert drawn, f"no figure of\n{cell.source}"
        for figure in drawn:
            assert figure["data"]
            assert re.search("trial|seed", figure["layout"]["title"]["subtitle"]["text"])


@pytest.mark.parametrize("name", BOOKS)
def test_what_is_kept_in_git_has_no_outputs(name):
    for cell in code(BOOKS[name].cells):
        assert not cell.outputs and cell.execution_count is None


@pytest.mark.parametrize("name", BOOKS)
def test_it_begins_with_its_question_and_then_asks_for_a_study(name):
    first, second, *_ = BOOKS[name].cells
    assert first.cell_type == "markdown" and re.match(r"# .*\n\n\*\*.*?\?\*\*\sFor\s", first.source)
    assert re.search(r"^RUNS? = os\.environ\.get\(", second.source, re.M)
    assert second.metadata.tags == ["parameters"]


def test_there_are_six():
    names = "comparison early_stopping forgetting generators importance overview"
    assert list(BOOKS) == names.split()
