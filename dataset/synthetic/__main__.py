"""Generation of synthetic rooms: `python -m dataset.synthetic demo --out data/synthetic`."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

import torch

from dataset.synthetic.generate import SIZES, Size, generate
from dataset.synthetic.writers import WRITERS
from utils.cli import command_parser, run_command
from utils.errors import UserError


def main() -> None:
    args = _parse()
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


def _parse() -> argparse.Namespace:
    parser = command_parser(
        "python -m dataset.synthetic",
        "Generate furnished rooms with colour, depth, classes and poses, and the lists\n"
        "train.txt, val.txt and test.txt of their names.\n\n"
        "  tiny    4 rooms of 64x48 pixels, in seconds, for tests\n"
        "  demo    10 rooms of 256x192 pixels\n"
        "  full    54 rooms of 640x480 pixels\n"
        "  fine    16 rooms of 1296x968 pixels, block furniture in fine textures\n\n"
        "Existing rooms are kept: the same command resumes an interrupted run.",
        "python -m dataset.synthetic demo --out data/synthetic",
    )
    parser.add_argument("size", choices=SIZES, metavar="SIZE", help="one of the sizes above")
    parser.add_argument(
        "--out", type=Path, default=Path("data/synthetic"), help="folder to write to (default: %(default)s)"
    )
    parser.add_argument(
        "--layout", choices=WRITERS, default="scannet", help="layout of the files (default: %(default)s)"
    )
    parser.add_argument(
        "--image", metavar="WxH", help="image size in pixels, for example 1296x968 (default: that of the size)"
    )
    parser.add_argument("--frames", type=int, help="frames of each room (default: that of the size)")
    parser.add_argument(
        "--rooms",
        type=int,
        nargs=3,
        metavar=("TRAIN", "VAL", "TEST"),
        help="number of rooms (default: that of the size)",
    )
    parser.add_argument(
        "--width",
        type=int,
        default=None,
        help="image width in pixels in the names of the lists (default: half the width of the images, from 64 to 320)",
    )
    parser.add_argument(
        "--furniture",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="furnish rooms with models: a pack made by dataset.synthetic.pack, .sh3f libraries of Sweet Home 3D, or a "
        "folder of them (needs embreex)",
    )
    parser.add_argument("--mixed", action="store_true", help="with --furniture: only every other room has models")
    parser.add_argument(
        "--sensor", action="store_true", help="simulate a hand-held RGB-D camera: noise, holes, blur, drift"
    )
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="device that casts the rays (default: %(default)s)",
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="rooms generated at once (default: one per core)"
    )
    args = parser.parse_args()
    if args.mixed and not args.furniture:
        raise UserError("--mixed needs --furniture, which names the models")
    return args


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
        raise UserError("--frames should be at least 1, and --rooms at least 0")
    return replace(size, rooms=rooms, frames=frames, image=image)


if __name__ == "__main__":
    run_command(main)
