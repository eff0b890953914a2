"""Demo of the weights that come with the repository, on a room they have never seen: `python -m viewing.demo`.

Builds a furnished room, renders its test views beside what needs no network, a film and a labelled mesh. Two minutes on
two CPU cores, seconds on a GPU.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch

from dataset.synthetic.generate import Size, generate
from dataset.synthetic.raycast import Light
from train.commands import evaluate_model
from train.shipped import model_config, shipped_model
from utils.cli import run_command
from utils.logging import say
from viewing.geometry import write_mesh
from viewing.paths import make_path, path_cameras
from viewing.references import References, mixes
from viewing.session import Session, open_session
from viewing.video import render_video

ROOT = Path("data/demo")
FRAMES = 60  # of the room that are taken as references and tests
CPU_WIDTH, GPU_WIDTH = 256, 320  # of pictures, pixels
FILM_SECONDS = 5  # length of the film
FILM_BUDGET = 32  # seconds that rendering the film may take
FEWEST_FRAMES, MOST_FRAMES = 16, 120  # of the film
MESH_VIEWS, VOXEL = 16, 0.03  # metres


def main() -> None:
    model, on_gpu = shipped_model(depth=True), torch.cuda.is_available()
    width = GPU_WIDTH if on_gpu else CPU_WIDTH
    rooms, scene = ROOT / f"room_{width}", f"scannet/test_000/black_{width}"
    say("1/4 a furnished room that the network has never seen")
    size = Size({"test": 1}, FRAMES, (width * 3 // 4, width), Light(0.25, 12, 4))
    generate(rooms, "scannet", size, list_width=width, device="cuda" if on_gpu else "cpu")
    where = [f"data_root={rooms}", f"cache_root={ROOT / 'cache'}", f"output_root={ROOT.parent}", f"name={ROOT.name}"]
    cfg = model_config(model, [*where, f"val_set_list=[{scene}]", "baselines=true"])
    say("2/4 its test views, beside what needs no network")
    evaluate_model(cfg, model)
    session = open_session(cfg, model, scene)
    say("3/4 a flight")
    write_flight(session, ROOT / "flight.mp4")
    say("4/4 a labelled mesh")
    # The frames' depth, the default, is in this room the truth that the score compares with.
    write_mesh(session, ROOT / "mesh.ply", MESH_VIEWS, VOXEL, depth="rendered", score=True)
    say(CLOSING.format(root=ROOT, scene=scene, rooms=rooms, python=os.path.relpath(sys.executable)))


def write_flight(session: Session, out: Path) -> None:
    """Render a flight through the room, with as many frames as FILM_BUDGET allows by the measured time of one."""
    references = References(session.scene, session.references)
    longest = path_cameras(make_path("interp", session.scene, MOST_FRAMES), session.scene, None)
    chosen = mixes(references, longest)
    renderings = sum(map(len, chosen))  # a frame between two sets of references is rendered from both
    start = time.perf_counter()
    session.render(longest.one(0), chosen[0])
    needed = renderings * (time.perf_counter() - start)
    count = max(FEWEST_FRAMES, int(MOST_FRAMES * min(1, FILM_BUDGET / needed)))
    cameras = path_cameras(make_path("interp", session.scene, count), session.scene, None)
    render_video(session, cameras, references, out, count / FILM_SECONDS)


CLOSING = """
look at   {root}/flight.mp4   colour, classes and depth on the way through the room
          {root}/panels       the test views, truth above prediction
          {root}/mesh.png     the mesh from above; mesh.ply is for MeshLab, Blender or CloudCompare
          {root}/results.md   the table, in full
walk      {python} run_rendering.py viewer --scene {scene} data_root={rooms}
          and open http://localhost:8080
yours     {python} run_rendering.py video --scene FOLDER   (a folder with a transforms.json)
train     make demo-train, which shows the whole loop in minutes; then docs/training.md"""


if __name__ == "__main__":
    run_command(main)
