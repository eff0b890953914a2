"""Conversion of two real captures, with hand-drawn classes, to small captures that this repository reads.

python -m benchmarks.captures {kitchen,hololens} FOLDER --out data/real [--width 320] [--overlays]

FOLDER holds the recording: of the kitchen of 7-Scenes frame-*.color.jpg, .depth.png, .pose.txt (its depth is of a
camera of its own), of deep-video-mvs' HoloLens sample *.color.jpg, *.depth.png, K.txt, poses.txt. Writes
<out>/<name>/transforms.json with colour, depth in the colour camera, and label maps, all `width` pixels wide and
without loss; the labelled frames are the test frames. --overlays paints the classes over the test frames, to be looked
at.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.labels import IGNORED, rasterise, read_polygons
from dataset.camera import scale_intrinsics
from dataset.database import open_scene
from dataset.intrinsics import DEPTH, camera_keys
from dataset.labels import SCANNET_CLASSES, SCANNET_COLORS
from dataset.poses import OPENGL_TO_OPENCV
from dataset.scene import Scene
from utils.cli import command_parser, run_command
from utils.errors import UserError
from utils.files import write_text
from utils.images import image_size, write_image
from utils.logging import say

KITCHEN_COLOR = np.array(
    [[523.6, 0, 314], [0, 523.6, 240], [0, 0, 1]]
)  # a fit of colour pixels to depth pixels: 0.895 times its focal length
KITCHEN_DEPTH = np.array([[585.0, 0, 320], [0, 585, 240], [0, 0, 1]])

FILES = (("images", ".webp"), ("depth", ".png"), ("labels", ".png"))

Recording = tuple[dict, dict[str, np.ndarray]]  # keys that hold for all frames, and camera-to-world of each


def main() -> None:
    parser = command_parser("python -m benchmarks.captures", __doc__)
    parser.add_argument("name", choices=RECORDINGS, help="which recording it is")
    parser.add_argument("folder", type=Path, help="folder of the recording")
    parser.add_argument("--out", type=Path, default=Path("data/real"), help="folder to write to (default: %(default)s)")
    parser.add_argument("--width", type=int, default=320, help="width of the images in pixels (default: %(default)s)")
    parser.add_argument("--overlays", action="store_true", help="paint the classes over the test frames")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        describe(args.name, args.folder, Path(place))
        scene = open_scene(f"{place}/black_{args.width}", Path(place))
        write_small(scene, args.out / args.name, args.overlays)
    say(f"{args.out / args.name}: {len(scene)} frames, of which {len(scene.split().tests)} are labelled")


def read_kitchen(folder: Path) -> Recording:
    poses = {path.name[: -len(".pose.txt")]: np.loadtxt(path) for path in sorted(folder.glob("frame-*.pose.txt"))}
    return {**camera_keys(KITCHEN_COLOR), **camera_keys(KITCHEN_DEPTH, DEPTH)}, poses


def read_hololens(folder: Path) -> Recording:
    path = folder / "poses.txt"
    rows = np.loadtxt(path) if path.is_file() else np.empty((0, 17))
    return camera_keys(np.loadtxt(folder / "K.txt")) if len(rows) else {}, {
        f"{int(row[0]):05d}": row[1:].reshape(4, 4) for row in rows
    }


RECORDINGS = {"kitchen": read_kitchen, "hololens": read_hololens}


def describe(name: str, folder: Path, place: Path) -> None:
    """Write a transforms.json in `place` of a recording as it is, and its label maps beside."""
    keys, poses = RECORDINGS[name](folder)
    if not poses:
        raise UserError(f"{folder}: holds no recording of {name}")
    polygons = read_polygons(name)
    missing = set(polygons) - set(poses)
    if missing:
        raise UserError(f"{folder}: has no frame {min(missing)}, which is labelled")
    frames = []
    for frame, pose in poses.items():
        color = (folder / f"{frame}.color.jpg").resolve()
        write_image(place / f"{frame}.png", rasterise(polygons.get(frame, []), image_size(color)))
        frames.append(
            {
                "file_path": str(color),
                "depth_file_path": str(folder.resolve() / f"{frame}.depth.png"),
                "semantic_path": f"{frame}.png",
                "transform_matrix": (pose @ OPENGL_TO_OPENCV).tolist(),
            }
        )
    tests = [frame["file_path"] for frame in frames if Path(frame["semantic_path"]).stem in polygons]
    content = {**keys, "semantic_classes": list(SCANNET_CLASSES), "test_filenames": tests, "frames": frames}
    write_text(place / "transforms.json", json.dumps(content))


def write_small(scene: Scene, target: Path, overlays: bool) -> None:
    """Write a scene's frames at its size, as a capture of its own."""
    height, width = scene.size
    Ks = scale_intrinsics(scene.Ks, scene.raw_size, scene.size)
    content = {**camera_keys(Ks[0]), "w": width, "h": height, "semantic_classes": list(SCANNET_CLASSES)}
    tests, frames = scene.split().tests, []
    for frame, pose in zip(scene.frame_ids, tqdm(scene.camera_to_world, desc=target.name), strict=True):
        views = scene.views([frame], depth=True, labels=True)
        images = {"file_path": views.images[0].permute(1, 2, 0), "depth_file_path": views.depth[0, 0]}
        classes = views.labels[0].numpy()
        images["semantic_path"] = np.where(classes < len(SCANNET_CLASSES), classes, IGNORED).astype(np.uint8)
        entry = {"transform_matrix": (pose @ OPENGL_TO_OPENCV).tolist()}
        for (key, image), (part, suffix) in zip(images.items(), FILES, strict=True):
            entry[key] = f"{part}/{frame}{suffix}"
            write_image(target / entry[key], np.asarray(image))
        frames.append(entry)
        if overlays and frame in tests:
            write_image(target / "overlays" / f"{frame}.jpg", overlay(np.asarray(images["file_path"]), classes))
    content["test_filenames"] = [f"images/{frame}.webp" for frame in tests]
    write_text(target / "transforms.json", json.dumps({**content, "frames": frames}))


def overlay(color: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the classes (h, w) half over a picture, twice as large; what is ignored stays as it is."""
    mixed = np.where((classes < len(SCANNET_CLASSES))[..., None], color * 0.35 + SCANNET_COLORS[classes] * 0.65, color)
    return cv2.resize(mixed.astype(np.uint8), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)


if __name__ == "__main__":
    run_command(main)
