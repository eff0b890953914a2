"""Prepares data: `python -m dataset.prepare scannet --source DIR --out data/scannet`, or replica, or transforms."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from dataset.prepare.replica import prepare_replica
from dataset.prepare.scannet import prepare_scannet
from dataset.prepare.transforms import prepare_transforms
from utils.cli import run_command
from utils.errors import UserError
from utils.files import read_text

KINDS = {  # -> default of --out, a line, a description, an example
    "scannet": (
        "data/scannet",
        "unpack a ScanNet release",
        "Unpack the .sens files and label archives of a ScanNet release, scan by scan.\n"
        "Frames that are there already are kept: a second run goes on where the first ended.",
        "--source downloads/scannet --scenes scene0376_02 --stride 1",
    ),
    "replica": (
        "data/Replica",
        "verify Replica renderings and link them",
        "Verify Replica renderings (of Semantic-NeRF, vMAP or NICE-SLAM), and link them into\nthe data folder.",
        "--source downloads/Replica",
    ),
    "transforms": (
        "data/transforms",
        "prepare a capture with a transforms.json",
        "Copy a capture with a transforms.json (nerfstudio, instant-ngp, Polycam, …): undistort\n"
        "its images, and write depth in millimetres, label maps and masks beside them.",
        "--source captures/kitchen --name kitchen",
    ),
}


def main() -> None:
    args = _parse()
    if not args.source.exists():
        raise UserError(f"--source {args.source}: there is no such folder")
    if args.kind == "scannet":
        if args.stride < 1:
            raise UserError("--stride should be at least 1")
        good = prepare_scannet(args.source, args.out, _listed(args.scenes), args.stride, args.workers)
    elif args.kind == "replica":
        good = prepare_replica(args.source, args.out)
    else:
        prepare_transforms(args.source, args.out, args.name or args.source.resolve().name)
        good = True
    sys.exit(0 if good else 1)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dataset.prepare",
        description="Bring a downloaded dataset, or a capture of your own, into the layout that the commands read.",
        epilog="Each kind has its own options: python -m dataset.prepare scannet --help",
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    for kind, (out, help_, description, example) in KINDS.items():
        sub = kinds.add_parser(
            kind,
            help=help_,
            description=description,
            epilog=f"example:\n  python -m dataset.prepare {kind} {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("--source", type=Path, required=True, help="folder as it was downloaded or captured")
        sub.add_argument("--out", type=Path, default=Path(out), help="folder to write to (default: %(default)s)")
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if kind == "scannet":
            sub.add_argument("--scenes", help="names with commas between, or a file with one a line (default: all)")
            sub.add_argument("--stride", type=int, default=1, help="keep every Nth frame (default: %(default)s)")
            sub.add_argument(
                "--workers", type=int, default=os.cpu_count(), help="scenes prepared at once (default: one a core)"
            )
        if kind == "transforms":
            sub.add_argument("--name", help="name of the capture (default: that of the folder)")
    return parser.parse_args()


def _listed(text: str | None) -> list[str] | None:
    """Parse scan names; database names such as scannet/scene0000_00/black_320 will do."""
    if text is None:
        return None
    lines = read_text(Path(text)).splitlines() if Path(text).is_file() else text.split(",")
    names = [line.strip() for line in lines if line.strip()]
    return [name.split("/")[1] if name.count("/") == 2 else name for name in names]


if __name__ == "__main__":
    run_command(main)
