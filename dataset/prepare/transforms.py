"""Preparation of a capture in nerfstudio's format, or a relative of it, as data/transforms/<name>: undistorted images,
masks, depth in millimetres, and one transforms.json of pinhole cameras with a depth range."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dataset.camera import undistort
from dataset.capture import CAPTURE_FILE, Capture, CaptureFrame, capture_file, read_capture
from dataset.exports import seems_to_be
from dataset.frames import require_shape, usable_frames
from dataset.intrinsics import camera_keys
from dataset.labels import capture_labels
from dataset.maps import read_depth, read_ids, read_mask
from dataset.poses import OPENGL_TO_OPENCV
from dataset.scene import SceneName
from dataset.transforms import unit_hint
from utils.decoding import PNG
from utils.errors import UserError
from utils.files import read_text, write_text
from utils.images import read_color, require_whole, write_image
from utils.logging import say, warn

FOLDERS = {"color": "images", "depth": "depth", "labels": "labels", "mask": "masks"}
FILE_KEYS = {"color": "file_path", "depth": "depth_file_path", "labels": "semantic_path", "mask": "mask_path"}
MADE_FROM = "prepared_from"  # key of the source in the transforms.json that is written
MADE = ".prepared"  # lists the files that were written: a folder without other files may be replaced
EXIF_OR_XMP = 0xE1  # marker of a JPEG segment
DEPTH_MARGIN, NEAREST = 1.1, 0.05  # factor around the depth in the maps; smallest near in metres


def prepare_transforms(source: Path, out: Path, name: str) -> None:
    """Write an undistorted copy of a capture, with poses in metres, to out/name. source: its folder or its JSON file.

    Colour files of cameras without distortion are copied unchanged, except for their orientation tag. The folder is
    moved to its place when it is complete. Raise UserError if the capture cannot be used; then nothing is written.
    """
    if Path(name).name != name or name in ("", ".", ".."):
        raise UserError(f"--name {name}: should be the name of one folder, without / and ..")
    path = capture_file(source)
    if path is None:
        raise UserError(f"{source}: holds no {CAPTURE_FILE} (nor Blender's transforms_train.json){seems_to_be(source)}")
    capture = read_capture(path)
    target = out / name
    _require_apart(capture, target)
    found = usable_frames(str(path), _all_files(capture), capture.pose, np.eye(3), capture.left_out)
    with _in_place_of(target) as folder:
        depth_ends: list[tuple[float, float]] = []
        frames = {
            number: _prepare_frame(capture, number, pose, folder, depth_ends)
            for number, pose in zip(found.numbers, tqdm(found.camera_to_world, desc=name, unit="frame"), strict=True)
        }
        content = _content(capture, frames, depth_ends)
        write_text(folder / CAPTURE_FILE, json.dumps(content, indent=1) + "\n")
        write_text(folder / MADE, "\n".join(_listing(folder)) + "\n")
    _say_what_was_made(name, content, found.camera_to_world)


def undistorted(name: str, data_root: str | Path) -> str:
    """Return the name of a scene; for the folder of a distorted capture that of an undistorted copy below `data_root`.
    The copy is created unless there is one that is newer than the transforms.json."""
    folder = SceneName.of_folder(name)
    if folder is None:
        return name
    path = capture_file(Path(folder.path))
    if all(frame.lens.is_pinhole for frame in read_capture(path).frames):
        return name
    out, copy = Path(data_root) / folder.kind, folder.text.split("/")[1]
    made = out / copy / CAPTURE_FILE
    if not made.is_file() or made.stat().st_mtime < path.stat().st_mtime:
        say(f"{folder.path} is distorted; an undistorted copy is written to {out / copy}")
        prepare_transforms(path, out, copy)
    return folder.text


def _require_apart(capture: Capture, target: Path) -> None:
    """Raise UserError if writing `target` would overwrite files of the user."""
    place = target.resolve()
    mine = [capture.path, *(file for frame in capture.frames for file in frame.files.values())]
    for file in mine:
        if place in Path(os.path.realpath(file)).parents:
            raise UserError(f"{target}: holds {file.name} of the source itself; choose another --out or --name")
    if target.exists() or target.is_symlink():
        if not (target / MADE).is_file():
            if (target / CAPTURE_FILE).is_file() and f'"{MADE_FROM}"' in read_text(target / CAPTURE_FILE):
                raise UserError(
                    f"{target}: was made by an earlier version, which did not note its files; remove it if nothing in it is yours, "
                    "or choose another --name"
                )
            raise UserError(
                f"{target}: exists already and was not made by preparation; choose another --name, or remove it"
            )
        changed = set(_listing(target)) - set(read_text(target / MADE).splitlines())
        if changed:
            name = min(changed).rsplit(" ", 2)[0]
            raise UserError(
                f"{target}: {name} was added or changed since preparation; choose another --name, or remove the folder"
            )


def _listing(folder: Path) -> list[str]:
    """Return all files in a prepared folder, with their sizes and modification times."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MADE)
    return [f"{path.relative_to(folder)} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]


@contextmanager
def _in_place_of(target: Path) -> Iterator[Path]:
    """Yield a new folder beside `target` that replaces it when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield new
        new.chmod(0o755)
        if target.exists():
            before = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
            target.rename(before / "before")
            new.rename(target)
            shutil.rmtree(before)
        else:
            new.rename(target)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _all_files(capture: Capture) -> dict[str, dict[int, Path]]:
    return {kind: paths for kind in FOLDERS if (paths := capture.files(kind))}


def _prepare_frame(
    capture: Capture, number: int, pose: np.ndarray, folder: Path, depth_ends: list[tuple[float, float]]
) -> dict:
    """Write the images of a frame and return its entry in the JSON file. Append near and far of its depth to
    `depth_ends`."""
    frame = capture.frames[number]
    maps = {kind: _read(kind, file, capture, frame) for kind, file in frame.files.items() if kind != "color"}
    for kind, values in maps.items():
        require_shape(values.shape, frame.size, frame.files[kind], kind)
    color = read_color(frame.files["color"])  # also for files that are copied: raises an error if they are damaged
    require_whole(frame.files["color"])
    if "depth" in maps and maps["depth"].any():
        depth_ends.append(tuple(np.quantile(maps["depth"][maps["depth"] > 0], [0.001, 0.999]) / 1000))
    entry = {"transform_matrix": (pose @ OPENGL_TO_OPENCV).tolist(), **_camera(frame)}
    entry[FILE_KEYS["color"]] = _write_color(frame, color, folder, number)
    if not frame.lens.is_pinhole:
        whole = maps.get("mask", np.ones(color.shape[:2], np.uint8))
        bent = {kind: values for kind, values in maps.items() if kind != "depth" or frame.depth_camera is None}
        maps |= {kind: undistort(values, frame.K, frame.lens, True, frame.size) for kind, values in bent.items()}
        mask = undistort(whole, frame.K, frame.lens, True, frame.size)
        maps |= {} if mask.all() else {"mask": mask}
    for kind, values in maps.items():
        entry[FILE_KEYS[kind]] = f"{FOLDERS[kind]}/{number}.png"
        write_image(folder / entry[FILE_KEYS[kind]], values * np.uint8(255) if kind == "mask" else values)
    return entry


def _read(kind: str, file: Path, capture: Capture, frame: CaptureFrame) -> np.ndarray:
    """Return a map as it will be stored: depth uint16, class numbers (255: ignored) and masks uint8. Depth of a
    separate camera is registered to the undistorted colour camera."""
    if kind == "depth":
        depth, camera = read_depth(file, capture.depth_unit), frame.depth_camera
        return depth if camera is None else camera.register(depth, frame.K, frame.size, file)
    if kind == "mask":
        return read_mask(file)
    labels = capture_labels(capture.classes, str(capture.path), capture.class_ids)
    classes = labels.classes(read_ids(file), file)  # raises an error for unknown ids
    return np.where(classes == labels.ignore, 255, classes).astype(np.uint8)


def _write_color(frame: CaptureFrame, color: np.ndarray, folder: Path, number: int) -> str:
    """Write a frame's colour and return the file's name."""
    source = frame.files["color"]
    suffix = source.suffix.lower() if source.suffix.lower() in (".jpg", ".jpeg", ".png") else ".png"
    name = f"{FOLDERS['color']}/{number}{suffix}"
    if not frame.lens.is_pinhole:
        write_image(folder / name, undistort(color, frame.K, frame.lens, False, frame.size), quality=95)
    elif suffix == source.suffix.lower():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(without_orientation(source.read_bytes()))
    else:
        write_image(folder / name, color)
    return name


def without_orientation(data: bytes) -> bytes:
    """Return a JPEG or PNG file without EXIF and XMP data, whose orientation tags make other programs rotate it."""
    if data.startswith(PNG):
        kept, at = [data[:8]], 8
        while at < len(data):
            end = at + 12 + int.from_bytes(data[at : at + 4], "big")
            kept += [] if data[at + 4 : at + 8] in (b"eXIf", b"iTXt", b"tEXt", b"zTXt") else [data[at:end]]
            at = end
        return b"".join(kept)
    kept, at = [data[:2]], 2
    while data[at : at + 1] == b"\xff" and data[at + 1] not in (0xDA, 0xD9):  # up to the pixels
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        kept += [] if data[at + 1] == EXIF_OR_XMP else [data[at:end]]
        at = end
    return b"".join([*kept, data[at:]])


def _camera(frame: CaptureFrame) -> dict[str, float]:
    """Return a frame's intrinsics in the file's convention."""
    return camera_keys(frame.K) | {"w": frame.size[1], "h": frame.size[0]}


def _content(capture: Capture, frames: dict[int, dict], depth_ends: list[tuple[float, float]]) -> dict:
    """Return the content of the new transforms.json, with intrinsics that all frames share at the top."""
    entries = list(frames.values())
    shared = {key: entries[0][key] for key in _camera(capture.frames[0]) if len({entry[key] for entry in entries}) == 1}
    content = {MADE_FROM: str(capture.path.resolve()), "camera_model": "PINHOLE", **shared}
    if capture.classes:
        content["semantic_classes"] = list(capture.classes)
    near_far = capture.depth_range or _range(depth_ends, capture.path)
    if near_far is not None:
        content["depth_range"] = list(near_far)
    parts = zip(("train_filenames", "test_filenames"), capture.split, strict=True)
    for key, part in parts:
        content[key] = [frames[int(number)]["file_path"] for number in part if int(number) in frames]
    content["frames"] = [{key: value for key, value in entry.items() if key not in shared} for entry in entries]
    return content


def _range(depth_ends: list[tuple[float, float]], path: Path) -> tuple[float, float] | None:
    """Return near and far in metres from those of the depth maps, with a margin; None without depth."""
    if not depth_ends:
        return None
    near, far = np.array(depth_ends).T
    near, far = max(NEAREST, float(near.min()) / DEPTH_MARGIN), float(far.max()) * DEPTH_MARGIN
    if near >= far:
        raise UserError(
            f"{path}: its depth maps end {far:.3f} m away, nearer than a camera sees; are they in another unit? "
            "give depth_unit_scale_factor (metres of a unit)"
        )
    return near, far


def _say_what_was_made(name: str, content: dict, camera_to_world: np.ndarray) -> None:
    has_depth = any("depth_file_path" in frame for frame in content["frames"])
    depth = "no depth"
    if "depth_range" in content:
        depth = "depth from {:.2f} to {:.2f} m".format(*content["depth_range"])
    say(
        f"transforms/{name}: {len(content['frames'])} frames, {depth}; its database name is transforms/{name}/black_320"
    )
    if not has_depth:
        hint = unit_hint(camera_to_world)
        if hint:
            warn(hint)
        else:
            say(
                "without depth, lengths are taken for metres; if they are not, set applied_scale in the source and prepare again"
            )
