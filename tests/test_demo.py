"""The demo, at tiny size and on untrained weights."""

import json

import imageio.v3 as imageio
import pytest

from utils.errors import UserError
from viewing import demo


@pytest.fixture
def small(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    sizes = {"CPU_WIDTH": 64, "FRAMES": 24, "FEWEST_FRAMES": 2, "MOST_FRAMES": 10, "FILM_BUDGET": 1.0}
    for name, value in {**sizes, "MESH_VIEWS": 6, "VOXEL": 0.1}.items():
        monkeypatch.setattr(demo, name, value)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def test_a_room_is_shown_in_every_way(small, stand_in, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("utils.files.REPOSITORY", stand_in)
    demo.main()
    shown = capsys.readouterr().out
    results = json.loads((tmp_path / "data/demo/results.json").read_text())
    assert len(results["methods"]) == 5 and results["methods"][results["network"]]["psnr"] > 15
    assert "| splat of all references, no network |" in shown and "make demo-train" in shown
    assert "viewer --scene scannet/test_000/black_64 data_root=data/demo/room_64" in shown
    film = imageio.imread(tmp_path / "data/demo/flight/color/00000.png")
    assert film.shape == (48, 64, 3)
    assert 2 <= len(list((tmp_path / "data/demo/flight/color").iterdir())) <= 10
    for name in ("flight.mp4", "mesh.png", "mesh.ply", "results.md"):
        assert (tmp_path / "data/demo" / name).stat().st_size > 0 and name in shown
    assert len(list((tmp_path / "data/demo/panels").rglob("*.jpg"))) == 2


def test_without_weights_nothing_is_begun(small, tmp_path, monkeypatch):
    monkeypatch.setattr("utils.files.REPOSITORY", tmp_path)
    with pytest.raises(UserError, match="weights that come with the repository are not there"):
        demo.main()
    assert not (tmp_path / "data").exists()
