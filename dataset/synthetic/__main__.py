"""Generates synthetic rooms: `python -m dataset.synthetic demo --out data/synthetic`."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

import torch

from dataset.synthetic.generate import SIZES, Size, generate
from dataset.synthetic.writers import WRITERS
from utils.cli import run_command
from utils.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dataset.synthetic", description=__doc__)
    parser.add_argument(
        "size",
        choices=SIZES,
        help="tiny: seconds, for tests; demo: 10 rooms; full: 54 rooms; fine: 16 rooms of block furniture in fine textures",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("data/synthetic"), help="folder to write to (default: %(default)s)"
    )
    parser.add_argument(
        "--layout", choices=WRITERS, default="scannet", help="whose files to write (default: %(default)s)"
    )
    parser.add_argument("--image", metavar="WxH", help="image size, for example 1296x968")
    parser.add_argument("--frames", type=int, help="frames of each room")
    parser.add_argument("--rooms", type=int, nargs=3, metavar=("TRAIN", "VAL", "TEST"), help="how many rooms")
    parser.add_argument(
        "--width", type=int, default=None, help="image width that the scene lists ask for (default: half, 320 at most)"
    )
    parser.add_argument(
        "--furniture",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="furnish rooms with models: a pack of dataset.synthetic.pack, .sh3f libraries of Sweet Home 3D, or a folder "
        "of them (needs embreex)",
    )
    parser.add_argument("--mixed", action="store_true", help="with --furniture: only every other room has models")
    parser.add_argument(
        "--sensor", action="store_true", help="as a hand-held camera sees it: noise, holes, blur, drift"
    )
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="casts rays (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="rooms made at once (default: one a core)")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    args = parser.parse_args()
    if args.mixed and not args.furniture:
        raise UserError("--mixed says how many rooms have models: name them with --furniture")
    generate(
        args.out,
        args.layout,
        _size(args),
        args.width,
        args.device,
        args.workers,
        args.furniture,
        args.mixed,
        args.sensor,
    )


def _size(args) -> Size:
    size = SIZES[args.size]
    image, rooms = size.image, size.rooms
    if args.image:
        width, _, height = args.image.partition("x")
        if not (width.isdigit() and height.isdigit() and 16 <= int(width) <= 8192 and 16 <= int(height) <= 8192):
            raise UserError(f"--image {args.image}: give WIDTHxHEIGHT, each from 16 to 8192, for example 640x480")
        image = (int(height), int(width))
    if args.rooms:
        rooms = dict(zip(rooms, args.rooms, strict=True))
    frames = size.frames if args.frames is None else args.frames
    if frames < 1 or min(rooms.values()) < 0:
        raise UserError("--frames and --rooms must not be negative, and there must be a frame")
    return replace(size, rooms=rooms, frames=frames, image=image)


if __name__ == "__main__":
    run_command(main)
