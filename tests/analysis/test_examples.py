"""Every example in the docstrings of ``analysis`` runs and says what it promises.

They are about ``study``, which lies in ``runs/lgm_vae-split_digits``.
"""

import doctest
import importlib
from pathlib import Path

import pytest

import analysis
from tests.analysis import made_up

FOLDER = Path(analysis.__file__).parent
MODULES = [file.stem for file in sorted(FOLDER.glob("*.py")) if ">>>" in file.read_text()]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    made_up.study(folder / "runs" / "lgm_vae-split_digits", 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield analysis.load("runs/lgm_vae-split_digits")


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(study, name):
    module = importlib.import_module(f"analysis.{name}")
    found = doctest.testmod(module, extraglobs={"study": study})
    assert found.attempted and not found.failed
