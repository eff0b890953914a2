"""The command of `run_rendering.py`: parse the options, load config and weights, call the mode."""

from __future__ import annotations

import argparse
from pathlib import Path

from easydict import EasyDict

from dataset.database import has_depth
from dataset.prepare.transforms import undistorted
from dataset.views import Cameras
from train.run import run_folder
from train.settings import SCHEMA
from train.shipped import model_config, shipped_model
from utils.cli import add_overrides, command_parser
from utils.config import complete_config, load_config
from utils.errors import UserError
from viewing.fusion import FEWEST_VIEWS
from viewing.geometry import DEPTHS, write_mesh, write_pointcloud
from viewing.labels import frame_shots, path_shots, write_labels
from viewing.paths import KINDS, make_path, path_cameras
from viewing.references import References
from viewing.session import Session, open_session
from viewing.video import render_video

MODES = {
    "video": "a film along a path: colour, classes and depth side by side (.mp4, .webp, .gif)",
    "viewer": "a page for the browser, to walk through the scene until Ctrl-C",
    "pointcloud": "a point cloud with colours and classes (.ply)",
    "mesh": "a mesh with colours and classes (.ply)",
    "labels": "label maps of all frames, or of a path, in the scene's own ids (a folder)",
}
MOST_FRAMES = 100_000
SMALLEST_VOXEL, LARGEST_VOXEL = 0.002, 1.0  # metres: smaller ones exceed memory, larger ones show nothing


def _positive(kind: type):
    def parse(text: str):
        value = kind(text)
        if not 0 < value < 1e9:
            raise ValueError
        return value

    parse.__name__ = f"positive {kind.__name__}"
    return parse


OPTIONS: dict[tuple[str, ...], dict[str, dict]] = {  # modes -> options of these modes -> arguments of `add_argument`
    ("video", "labels"): {
        "--path": dict(
            help=f"{', '.join(KINDS)}, or a JSON file of nerfstudio's viewer (default: interp; for labels the "
            "frames of the capture)"
        ),
        "--seconds": dict(
            type=_positive(float),
            default=8.0,
            help="length of the path in seconds (default: %(default)g); a JSON file has its own",
        ),
        "--fps": dict(type=_positive(float), default=24.0, help="frames per second (default: %(default)g)"),
    },
    ("video", "viewer", "labels"): {
        "--width": dict(type=_positive(int), help="width of a picture in pixels (default: the scene's)")
    },
    ("video", "pointcloud", "mesh", "labels"): {
        "--out": dict(
            type=Path, help="file to write, for labels a folder (default: below <output_root>/<name>/renderings)"
        )
    },
    ("pointcloud", "mesh"): {
        "--views": dict(
            type=_positive(int),
            default=60,
            help="number of frames of the capture to render and fuse (default: %(default)s)",
        ),
        "--depth": dict(
            choices=DEPTHS,
            default="frames",
            help="depth to fuse: that of the frames, measured or else predicted, or that which the network renders "
            "(default: %(default)s, which makes better meshes)",
        ),
        "--voxel": dict(type=_positive(float), default=0.02, help="edge of a voxel in metres (default: %(default)s)"),
    },
    ("pointcloud", "mesh", "labels"): {
        "--score": dict(action="store_true", help="compare the result with the scene's own depth and labels")
    },
    ("viewer",): {
        "--host": dict(
            default="127.0.0.1", help="address to listen at; 0.0.0.0 admits other machines (default: %(default)s)"
        ),
        "--port": dict(type=_positive(int), default=8080, help="port of the page (default: %(default)s)"),
    },
}


def rendering() -> None:
    args = _parse()
    session, cfg = _open(args)
    folder = run_folder(cfg) / "renderings" / session.scene.name.replace("/", "_")
    run = {"video": _video, "viewer": _viewer, "pointcloud": _geometry, "mesh": _geometry, "labels": _labels}
    run[args.mode](args, session, folder)


def _open(args) -> tuple[Session, EasyDict]:
    """Return a session with the network and scene of the options, and its config. Defaults: the weights that come with
    the repository, and the config inside the weights' file."""
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
    """Return the cameras of a path, and the references to render them from."""
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
    from viewing.viewer import serve  # imports viser, which only this mode needs

    serve(session, args.host, args.port, args.width)


def _geometry(args, session: Session, folder: Path) -> None:
    if not SMALLEST_VOXEL <= args.voxel <= LARGEST_VOXEL:
        raise UserError(f"--voxel {args.voxel:g}: should be {SMALLEST_VOXEL} to {LARGEST_VOXEL} (metres)")
    write = write_mesh if args.mode == "mesh" else write_pointcloud
    write(session, args.out or folder / f"{args.mode}.ply", args.views, args.voxel, args.depth, args.score)


def _parse() -> argparse.Namespace:
    parser = command_parser(
        "run_rendering.py",
        "Render new views of a scene with a trained network, in one of these modes:\n\n"
        + "\n".join(f"  {mode:<12}{what}" for mode, what in MODES.items()),
        "python run_rendering.py video --scene captures/kitchen",
        "python run_rendering.py mesh --scene scannet/scene0376_02/black_320 --model-path data/model/<name>/model_best.pth",
    )
    parser.add_argument("mode", choices=MODES, metavar="MODE", help="one of the modes above")
    add_overrides(parser, example="train_dataset_cfg.min_wn=4")
    parser.add_argument("--scene", required=True, help="database name, or a folder with a transforms.json")
    parser.add_argument("--model-path", help="weights (default: those that come with the repository)")
    parser.add_argument(
        "--cfg", help="YAML file of the config, as for run_evaluation.py (default: the config inside the weights' file)"
    )
    for modes, entries in OPTIONS.items():
        group = parser.add_argument_group("options of " + ", ".join(modes))
        for name, settings in entries.items():
            group.add_argument(name, **settings)
    args = parser.parse_intermixed_args()
    _refuse_without_effect(parser, args)
    if args.mode in ("pointcloud", "mesh") and args.views < FEWEST_VIEWS:
        raise UserError(f"--views should be at least {FEWEST_VIEWS}: what only one view shows is not trusted")
    return args


def _refuse_without_effect(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Raise UserError for an option that has no effect in the given mode."""
    for modes, entries in OPTIONS.items():
        for name in entries:
            key = name.removeprefix("--")
            if args.mode not in modes and getattr(args, key) != parser.get_default(key):
                raise UserError(f"{name} is for {' and '.join(modes)}, and has no effect in {args.mode}")
