"""Measures how much a film flickers where its references change.

python -m benchmarks.flicker --scene NAME --model-path MODEL --out FOLDER --width 96

Renders the same path, along a part of the capture, with references as films choose them, with one fixed set of them,
and with choices that change at once; and writes flicker.md.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.common import model_parser, provenance, session_of
from dataset.views import Cameras
from utils.cli import run_command
from utils.files import write_text
from viewing.flicker import jumps
from viewing.paths import CameraPath, path_cameras, smooth_path
from viewing.references import Mix, References, mixes
from viewing.session import blend

KNOT = 4  # frames of the capture from one point of the path to the next


def main() -> None:
    parser = model_parser("python -m benchmarks.flicker", __doc__)
    parser.add_argument("--scene", required=True, help="database name, or a folder with a transforms.json")
    parser.add_argument("--frames", type=int, default=33, help="frames of the film (default: %(default)s)")
    parser.add_argument(
        "--stretch",
        type=float,
        nargs=2,
        default=(0.1, 0.5),
        metavar=("FROM", "TO"),
        help="part of the capture, 0 to 1 (default: 0.1 0.5)",
    )
    parser.add_argument("--width", type=int, help="width of a picture in pixels (default: the scene's)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    args = parser.parse_intermixed_args()
    session = session_of(args.model_path, args.cfg, args.scene, args.overrides)
    references = References(session.scene, session.references)
    poses = session.scene.camera_to_world
    first, last = (int(part * len(poses)) for part in args.stretch)
    path = CameraPath(smooth_path(poses[first:last:KNOT], args.frames))
    cameras = path_cameras(path, session.scene, args.width)

    @functools.cache
    def part(frame: int, names: tuple[str, ...]):
        return session.render(cameras.one(frame), [(1.0, names)])

    header = ["references", "changes", "jump, mean", "99%", "largest"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for title, choose in CHOICES.items():
        chosen = choose(references, cameras)
        film = [blend([(weight, part(i, names)) for weight, names in mix]) for i, mix in enumerate(chosen)]
        values = jumps(film, cameras)
        changes = sum({names for _, names in a} != {names for _, names in b} for a, b in pairwise(chosen))
        cells = [f"{value:.3f}" for value in (np.nanmean(values), np.nanquantile(values, 0.99), np.nanmax(values))]
        lines.append(f"| {title} | {changes} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    lines += ["", "Grey levels of 255 from one frame to the next, beyond what the camera's movement explains.", ""]
    lines += [f"- {session.renderer.network.title}, {args.model_path}; {args.scene}, {args.frames} frames"]
    write_text(args.out / "flicker.md", "\n".join([*lines, f"- {provenance(session.device)}"]) + "\n")


def fixed(references: References, cameras: Cameras) -> list[Mix]:
    """Give every camera the mix of the camera in the middle of the path."""
    return [[(1.0, references.choose(cameras.one(len(cameras) // 2)))]] * len(cameras)


def abrupt(references: References, cameras: Cameras) -> list[Mix]:
    """Return the heavier part of each mix of the film's."""
    return [[(1.0, max(mix)[1])] for mix in mixes(references, cameras)]


def anew(references: References, cameras: Cameras) -> list[Mix]:
    """Choose the best references for each camera anew."""
    return [[(1.0, references.choose(cameras.one(i)))] for i in range(len(cameras))]


CHOICES: dict[str, Callable[[References, Cameras], list[Mix]]] = {
    "as in films": mixes,
    "one fixed set": fixed,
    "as in films, without fading": abrupt,
    "the best for each frame": anew,
}


if __name__ == "__main__":
    run_command(main)
