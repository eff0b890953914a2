"""The notebook runs, and its pictures are in it."""

import base64
import json

import numpy as np
import pytest
from PIL import Image

from benchmarks.notebook import run_cell, run_notebook
from utils.files import REPOSITORY

NOTEBOOK = REPOSITORY / "docs/semray.ipynb"


def pictures_in(content):
    outputs = [output for cell in content["cells"] for output in cell.get("outputs", [])]
    return [base64.b64decode(output["data"]["image/png"]) for output in outputs]


def test_every_cell_runs_and_shows_its_picture(stand_in, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("utils.files.REPOSITORY", stand_in)
    content = json.loads(NOTEBOOK.read_text().replace("WIDTH = 160", "WIDTH = 64"))
    run_notebook(content)
    pictures = pictures_in(content)
    assert len(pictures) == 3
    for number, data in enumerate(pictures):
        (tmp_path / f"{number}.png").write_bytes(data)
        picture = np.asarray(Image.open(tmp_path / f"{number}.png"))
        assert picture.shape[0] in (48, 96) and picture.std() > 0.5, "it shows something"


def test_what_is_committed_has_pictures_and_is_small():
    assert len(pictures_in(json.loads(NOTEBOOK.read_text()))) == 3 and NOTEBOOK.stat().st_size < 500_000


def test_a_cell_is_worth_its_last_line():
    names = {}
    assert run_cell("a = 2\na + 1", names) == 3 and run_cell("b = a", names) is None and names["b"] == 2
    with pytest.raises(NameError):
        run_cell("c", {})
