"""Compares meshes from the frames' depth and from rendered depth.

python -m benchmarks.geometry --scenes NAME … --model-path MODEL --out FOLDER --truth DATA_ROOT

--truth: folder with the same scenes as they are, where those that are rendered were seen by a noisy sensor; `python -m
dataset.synthetic` makes the same rooms with and without --sensor. FOLDER gets geometry.md and a picture of each mesh.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.common import model_parser, provenance, session_of
from dataset.database import open_scene
from dataset.view_selection import evenly
from utils.cli import run_command
from utils.errors import UserError
from utils.files import write_text
from utils.images import write_image
from viewing.geometry import DEPTHS, build, compare, measured, mesher
from viewing.paths import up_of
from viewing.preview import preview

COLUMNS = {"accuracy_cm": ".1f", "completeness_cm": ".1f", "f_score": ".3f", "miou": ".3f"}


def main() -> None:
    parser = model_parser("python -m benchmarks.geometry", __doc__)
    parser.add_argument("--scenes", nargs="+", required=True, help="database names")
    parser.add_argument(
        "--truth", type=Path, help="data root of the exact rooms to compare with (default: the scenes themselves)"
    )
    parser.add_argument("--views", type=int, default=60, help="frames to fuse (default: %(default)s)")
    parser.add_argument("--voxel", type=float, default=0.02, help="edge of a voxel in metres (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    args = parser.parse_intermixed_args()
    args.overrides += [name for name in args.scenes if "=" in name]  # what follows --scenes is taken for one
    args.scenes = [name for name in args.scenes if "=" not in name]
    args.out.mkdir(parents=True, exist_ok=True)
    lines = [
        "| scene | depth | accuracy, cm | completeness, cm | F-score at 5 cm | mIoU of vertices |",
        "|---" * 6 + "|",
    ]
    for name in args.scenes:
        session = session_of(args.model_path, args.cfg, name, args.overrides)
        frames = evenly(session.scene.frame_ids, args.views)
        truth = open_scene(name, args.truth) if args.truth else session.scene
        missing = set(frames) - set(truth.frame_ids)
        if missing:
            raise UserError(f"--truth {args.truth}: {name} lacks the frame {min(missing)}")
        expected = measured(truth, frames, args.voxel, session.device)
        for depth in DEPTHS:
            mesh = build(session, frames, args.out, depth, mesher(session, args.voxel))
            if mesh is None:
                raise UserError(f"{name}: no two views agree on anything with --depth {depth}")
            score = compare(mesh, *expected, session)
            cells = [format(score[key], form) if key in score else "–" for key, form in COLUMNS.items()]
            lines.append(f"| {name} | {depth} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
            picture = args.out / f"{name.replace('/', '_')}_{depth}.png"
            write_image(picture, preview(mesh, session.classes, up_of(session.scene.camera_to_world)))
    lines += ["", f"- {session.renderer.network.title}, {args.model_path} {' '.join(args.overrides)}"]
    lines += [f"- {args.views} views, voxels of {args.voxel} m; truth: {args.truth or 'the depth of the scenes'}"]
    write_text(args.out / "geometry.md", "\n".join([*lines, f"- {provenance(session.device)}"]) + "\n")


if __name__ == "__main__":
    run_command(main)
