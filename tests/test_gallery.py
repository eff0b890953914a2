"""The pictures of the README: the networks beside the truth, frame by frame, from random weights."""

import sys

import pytest
import torch

from benchmarks import gallery
from train.run import build_network
from train.settings import SCHEMA
from utils.config import load_config
from utils.images import read_color

ROOM = "scannet/test_000/black_64"


@pytest.fixture
def run(rooms, tmp_path, monkeypatch):
    """Calls the command on models of random weights, S-Ray+'s and the published network's."""
    common = [f"data_root={rooms}", "cache=false", "device=cpu", "worker_num=0", "train_dataset_cfg.min_wn=3"]
    common += ["depth_sample_num=8", "fine_depth_sample_num=8"]
    arguments = ["--scene", ROOM, "--out", str(tmp_path / "out")]
    for option, kind in (("", "plus"), ("faithful-", "cra")):
        cfg = f"configs/{kind}/test_{kind}_synthetic.yaml"
        network = build_network(load_config(cfg, SCHEMA, common), "cpu")
        torch.save({"network_state_dict": network.state_dict()}, tmp_path / f"{kind}.pth")
        arguments += [f"--{option}cfg", cfg]
    arguments += ["--model-path", str(tmp_path / "plus.pth"), "--faithful", str(tmp_path / "cra.pth")]

    def main(*more: str):
        monkeypatch.setattr(sys, "argv", ["gallery", *arguments, *more, "--", *common])
        gallery.main()
        return tmp_path / "out"

    return main


def test_networks_are_compared_frame_by_frame_by_their_names(run, capsys):
    out = run("--only", "comparison")
    table = (out / "comparison.md").read_text()
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ") and "PSNR" not in line]
    frames = list(dict.fromkeys(row[0] for row in rows))
    assert (
        [row[1] for row in rows] == ["S-Ray+", "S-Ray"] * len(frames)
        and len(frames) > 1
        and table in capsys.readouterr().out
    )
    psnr = {name: sum(float(row[2]) for row in rows if row[1] == name) for name in ("S-Ray+", "S-Ray")}
    assert psnr["S-Ray+"] > psnr["S-Ray"] + 5 * len(frames), "untrained it shows the references' colours"
    picture = read_color(out / "comparison.jpg")
    assert picture.shape[0] > 6 * 150  # three rows of colours, three of classes


def test_a_flight_and_a_mesh_are_made_by_commands(run, monkeypatch):
    """Of which each writes its picture beside what it is told to write."""
    commands = []

    def pretend(command, check):
        commands.append(command)
        out = command[command.index("--out") + 1]
        open(out.replace(".ply", ".png"), "w").close()

    monkeypatch.setattr(gallery.subprocess, "run", pretend)
    out = run("--only", "flight", "mesh", "--without-depth", "other.pth")
    made = {path.name for path in out.iterdir()}
    assert made == {"flight.webp", "mesh.png", "flight_without_depth.webp", "mesh_without_depth.png"}
    assert [command[2] for command in commands] == ["video", "mesh"] * 2
    assert "other.pth" in commands[2] and "init_net_cfg.measured_depth=false" in commands[2]
    assert "other.pth" not in commands[0] and "init_net_cfg.measured_depth=false" not in commands[0]
