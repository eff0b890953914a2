"""Body of `run_rendering.py`: parse, load, call."""

from __future__ import annotations

import argparse
from pathlib import Path

from easydict import EasyDict

from dataset.prepare.transforms import undistorted
from dataset.render_dataset import has_depth
from dataset.views import Cameras
from train.run import run_folder
from train.settings import SCHEMA
from train.shipped import model_config, shipped_model
from utils.config import complete_config, load_config
from utils.errors import UserError
from viewing.fusion import FEWEST_VIEWS
from viewing.geometry import DEPTHS, write_mesh, write_pointcloud
from viewing.labels import frame_shots, path_shots, write_labels
from viewing.paths import KINDS, make_path, path_cameras
from viewing.references import References
from viewing.session import Session, open_session
from viewing.video import render_video

MODES = ("video", "viewer", "pointcloud", "mesh", "labels")
MOST_FRAMES = 100_000
SMALLEST_VOXEL, LARGEST_VOXEL = 0.002, 1.0  # metres: what memory holds, and what still shows a room


def _positive(kind: type):
    def parse(text: str):
        value = kind(text)
        if not 0 < value < 1e9:
            raise ValueError
        return value

    parse.__name__ = f"positive {kind.__name__}"
    return parse


OPTIONS = {  # modes -> what else can be said in these
    ("video", "labels"): {
        "--path": dict(
            help=f"{', '.join(KINDS)}, or a JSON file from nerfstudio's viewer (default: interp; of labels the "
            "frames of the capture)"
        ),
        "--seconds": dict(
            type=_positive(float), default=8.0, help="length (default: %(default)g); a JSON file has its own"
        ),
        "--fps": dict(type=_positive(float), default=24.0, help="frames a second (default: %(default)g)"),
    },
    ("video", "viewer", "labels"): {
        "--width": dict(type=_positive(int), help="of the picture in pixels (default: the scene's)")
    },
    ("video", "pointcloud", "mesh", "labels"): {
        "--out": dict(type=Path, help="file to write, of labels a folder (default: below the run's folder)")
    },
    ("pointcloud", "mesh"): {
        "--views": dict(
            type=_positive(int),
            default=60,
            help="frames of the capture that are rendered and fused (default: %(default)s)",
        ),
        "--depth": dict(
            choices=DEPTHS,
            default="frames",
            help="depth to fuse: of frames, measured or, where nothing was, predicted; or rendered by the network "
            "(default: %(default)s, which makes better meshes)",
        ),
        "--voxel": dict(type=_positive(float), default=0.02, help="size in metres (default: %(default)s)"),
    },
    ("pointcloud", "mesh", "labels"): {
        "--score": dict(action="store_true", help="compare with the scene's own depth and labels")
    },
    ("viewer",): {
        "--host": dict(default="127.0.0.1", help="0.0.0.0 can be reached from other machines (default: %(default)s)"),
        "--port": dict(type=_positive(int), default=8080, help="of the page (default: %(default)s)"),
    },
}


def rendering() -> None:
    args = _parse()
    session, cfg = _open(args)
    folder = run_folder(cfg) / "renderings" / session.scene.name.replace("/", "_")
    run = {"video": _video, "viewer": _viewer, "pointcloud": _geometry, "mesh": _geometry, "labels": _labels}
    run[args.mode](args, session, folder)


def _open(args) -> tuple[Session, EasyDict]:
    """Open the scene with a network in front, and its config: of both, what is not named is what comes with the
    repository."""
    if args.cfg is None:
        cfg = complete_config({}, SCHEMA, args.overrides, "the command line")
    else:
        cfg = load_config(args.cfg, SCHEMA, args.overrides)
    scene = undistorted(args.scene, cfg.data_root)
    model = args.model_path or shipped_model(has_depth(scene, cfg.data_root))
    if args.cfg is None:
        cfg = model_config(model, args.overrides)
    return open_session(cfg, model, scene), cfg


def _video(args, session: Session, folder: Path) -> None:
    kind = args.path or "interp"
    out = args.out or folder / f"{Path(kind).stem}.mp4"
    render_video(session, *_along(kind, args, session), out, args.fps)


def _along(kind: str, args, session: Session) -> tuple[Cameras, References]:
    """Return the cameras of a path, and what to render them from."""
    count = max(1, round(args.seconds * args.fps))
    if count > MOST_FRAMES:
        raise UserError(
            f"--seconds {args.seconds:g} at --fps {args.fps:g} are {count:,} frames; {MOST_FRAMES:,} are the most"
        )
    path = make_path(kind, session.scene, count)
    references = References(session.scene, session.references, for_tests=kind == "test")
    return path_cameras(path, session.scene, args.width), references


def _labels(args, session: Session, folder: Path) -> None:
    if args.path is None:
        shots = frame_shots(session.scene, References(session.scene, session.references), args.width)
    else:
        shots = path_shots(*_along(args.path, args, session))
    name = "labels" if args.path is None else f"labels_{Path(args.path).stem}"
    write_labels(session, shots, args.out or folder / name, args.score)


def _viewer(args, session: Session, folder: Path) -> None:
    from viewing.viewer import serve  # which needs viser, as nothing else does

    serve(session, args.host, args.port, args.width)


def _geometry(args, session: Session, folder: Path) -> None:
    if not SMALLEST_VOXEL <= args.voxel <= LARGEST_VOXEL:
        raise UserError(f"--voxel {args.voxel:g}: should be {SMALLEST_VOXEL} to {LARGEST_VOXEL} (metres)")
    write = write_mesh if args.mode == "mesh" else write_pointcloud
    write(session, args.out or folder / f"{args.mode}.ply", args.views, args.voxel, args.depth, args.score)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="See what a network makes of a scene.")
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config, dotted where nested")
    parser.add_argument(
        "--cfg", help="YAML file, as for run_evaluation.py (default: the config in the file of the model)"
    )
    parser.add_argument(
        "--model-path",
        help="checkpoint, for example data/model/<name>/model_best.pth (default: the weights that come with the repository)",
    )
    parser.add_argument("--scene", required=True, help="database name, or a folder with a transforms.json")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    for modes, entries in OPTIONS.items():
        group = parser.add_argument_group(" and ".join(modes))
        for name, settings in entries.items():
            group.add_argument(name, **settings)
    args = parser.parse_intermixed_args()
    _refuse_without_effect(parser, args)
    if args.mode in ("pointcloud", "mesh") and args.views < FEWEST_VIEWS:
        raise UserError(f"--views should be at least {FEWEST_VIEWS}: what only one view shows is not trusted")
    return args


def _refuse_without_effect(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Raises UserError for an option that is of other modes than the one that was asked for."""
    for modes, entries in OPTIONS.items():
        for name in entries:
            key = name.removeprefix("--")
            if args.mode not in modes and getattr(args, key) != parser.get_default(key):
                raise UserError(f"{name} is for {' and '.join(modes)}, and changes nothing in {args.mode}")
