"""Camera paths: along a capture, around it, or from a file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.spatial.transform import Rotation, RotationSpline

from dataset.camera import centred_intrinsics, focal_length, scale_intrinsics
from dataset.capture import read_pose
from dataset.capture_keys import check_keys, read_scale
from dataset.intrinsics import frame_field_of_view
from dataset.poses import OPENGL_TO_OPENCV, to_pose
from dataset.scene import Scene, to_cameras, view_size
from dataset.statements import check_statement
from dataset.views import Cameras
from utils.errors import UserError
from utils.files import read_json
from utils.logging import warn

KINDS = ("interp", "test", "orbit", "spiral")
FRAMES_A_KNOT = (
    8  # frames between knots of a path along a capture: with more knots it would follow the shake of the hand
)
METRES_A_RADIAN = 1.0  # length that a rotation adds to a path, so that turning on the spot takes time
SPIRAL_TURNS, SPIRAL_REACH = 2, 0.3  # number of turns, and radius relative to the spread of the cameras
AHEAD = 2.0  # metres: assumed distance of what cameras look at
SMALLEST_VIEW = 5.0  # degrees; a smaller field of view is probably in radians
PERSPECTIVE = (None, "", "perspective", "pinhole", 1)  # values of camera_type that are rendered
NORMALISATION = "dataparser_transforms.json"  # nerfstudio's normalisation of a capture, applied to exported cameras
OTHER_SHAPE = 0.05  # largest relative difference between the aspect ratios of a path and its scene without a warning
UPSIDE_DOWN = -0.25  # scalar product of the mean up directions of a path and its scene, below which to warn
COMMON_DIRECTION = 0.3  # length of the mean viewing direction from which on cameras look the same way


class CameraPath(NamedTuple):
    """A path of N cameras.

    camera_to_world: (N, 4, 4), OpenCV axes, metres. field_of_view: (N,) vertical, radians; None: the scene's. aspect:
    width over height; None if unknown.
    """

    camera_to_world: np.ndarray
    field_of_view: np.ndarray | None = None
    aspect: float | None = None

    def __len__(self) -> int:
        return len(self.camera_to_world)


def make_path(kind: str, scene: Scene, count: int) -> CameraPath:
    """Make a path of `count` cameras: one of KINDS, or a JSON file of poses (which has its own number of them)."""
    if kind not in KINDS:
        return read_path(Path(kind))
    if kind == "interp":
        return CameraPath(smooth_path(_thinned(scene.camera_to_world, max(4, count // FRAMES_A_KNOT)), count))
    if kind == "test":
        rows = [scene.frame_ids.index(frame) for frame in scene.split().tests]
        if not rows:
            raise UserError(f"--path test: {scene.name} has no test frames")
        return CameraPath(smooth_path(scene.camera_to_world[rows], count))
    return CameraPath({"orbit": orbit, "spiral": spiral}[kind](scene.camera_to_world, count))


def smooth_path(knots: np.ndarray, count: int) -> np.ndarray:
    """Return `count` poses at even speed on a smooth curve through the poses `knots` (M, 4, 4)."""
    if len(knots) == 1:
        return np.repeat(knots, count, 0)
    positions, rotations = knots[:, :3, 3], Rotation.from_matrix(knots[:, :3, :3])
    turned = (rotations[:-1].inv() * rotations[1:]).magnitude()
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1) + METRES_A_RADIAN * turned
    at = np.concatenate([[0], np.cumsum(np.maximum(steps, 1e-4))])
    wanted = np.linspace(0, at[-1], count)
    path = np.tile(np.eye(4), (count, 1, 1))
    path[:, :3, 3] = PchipInterpolator(at, positions)(wanted)  # does not overshoot
    path[:, :3, :3] = RotationSpline(at, rotations)(wanted).as_matrix()
    return path


def _thinned(poses: np.ndarray, most: int) -> np.ndarray:
    """Return at most `most` poses: the means of consecutive parts of the capture."""
    means = []
    for stretch in np.array_split(poses, min(most, len(poses))):
        mean = np.eye(4)
        mean[:3, 3] = stretch[:, :3, 3].mean(0)
        mean[:3, :3] = Rotation.from_matrix(stretch[:, :3, :3]).mean().as_matrix()
        means.append(mean)
    return np.stack(means)


def orbit(poses: np.ndarray, count: int) -> np.ndarray:
    """Return a circle around the mean of the capture's cameras. If these look in a common direction the path looks at
    their common target, otherwise to the middle or outward as most of them do."""
    centre, up = poses[:, :3, 3].mean(0), up_of(poses)
    offsets = poses[:, :3, 3] - centre
    forward = poses[:, :3, 2]
    first = _orthogonal(offsets[np.argmax(np.linalg.norm(offsets, axis=1))], up)
    second = np.cross(up, first)
    flat = offsets - (offsets @ up)[:, None] * up
    radius = np.sqrt((flat**2).sum(1).mean())
    outward = np.sign((forward * offsets).sum()) or 1
    tilt = float(np.clip((forward @ up).mean(), -0.7, 0.7))
    together = np.linalg.norm(forward.mean(0)) > COMMON_DIRECTION
    target = (poses[:, :3, 3] + AHEAD * forward).mean(0)
    path = []
    for angle in np.arange(count) / count * 2 * np.pi:
        direction = np.cos(angle) * first + np.sin(angle) * second
        position = centre + radius * direction
        path.append(look(position, target - position if together else outward * direction + tilt * up, up))
    return np.stack(path)


def spiral(poses: np.ndarray, count: int) -> np.ndarray:
    """Return a small spiral around the pose nearest to the mean of the capture, looking at a fixed point ahead of
    it."""
    centre, up = poses[:, :3, 3].mean(0), up_of(poses)
    spread = np.linalg.norm(poses[:, :3, 3] - centre, axis=1)
    base = poses[np.argmin(spread)]
    reach = SPIRAL_REACH * max(float(np.median(spread)), 0.1)
    target = base[:3, 3] + AHEAD * base[:3, 2]
    path = []
    for t in np.arange(count) / count * 2 * np.pi:
        way = np.array([np.cos(SPIRAL_TURNS * t), np.sin(SPIRAL_TURNS * t), 0.5 * np.sin(t)]) * reach
        position = base[:3, 3] + base[:3, :3] @ way
        path.append(look(position, target - position, up))
    return np.stack(path)


def up_of(poses: np.ndarray) -> np.ndarray:
    """Return the up direction, (3,): the mean of the cameras' own."""
    up = -poses[:, :3, 1].mean(0)
    return up / max(np.linalg.norm(up), 1e-9)


def look(position: np.ndarray, direction: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Return the pose (4, 4) of a camera that looks in a direction."""
    forward = direction / np.linalg.norm(direction)
    right = _orthogonal(np.cross(forward, up), forward)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
    pose[:3, 3] = position
    return pose


def _orthogonal(vector: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Return the normalised component of `vector` orthogonal to the unit vector `axis`; any orthogonal one if they are
    parallel."""
    for candidate in (vector, np.eye(3)[0], np.eye(3)[1]):
        flat = candidate - (candidate @ axis) * axis
        if np.linalg.norm(flat) > 1e-6:
            return flat / np.linalg.norm(flat)
    raise AssertionError("three vectors cannot all be parallel to one")


def read_path(path: Path) -> CameraPath:
    """Read a path from a JSON file: of nerfstudio's viewer, of `ns-export cameras`, or a transforms.json. Raise
    UserError, which names the error, for any other file."""
    content = read_json(path, f"there is no such camera path (a JSON file, or one of {', '.join(KINDS)})")
    if isinstance(content, list) and content:
        return _exported_cameras(content, path)
    return parse_path(content, str(path))


def parse_path(content, source: str) -> CameraPath:
    """Parse the path in the content of a JSON file; `source` names it in errors."""
    if isinstance(content, dict) and isinstance(content.get("frames"), list) and "camera_path" not in content:
        return _capture_cameras(content, source)
    cameras = content.get("camera_path") if isinstance(content, dict) else None
    if not isinstance(cameras, list) or not cameras:
        raise UserError(
            f"{source}: has no list `camera_path`, as nerfstudio's viewer exports it (nor `frames`, as a transforms.json)"
        )
    for values in (content, *cameras):
        for key, value in values.items() if isinstance(values, dict) else ():
            if not isinstance(value, list):  # of poses themselves
                check_statement(key, value, Path(source))
    if content.get("crop"):
        warn(f"{source}: its crop is not applied")
    poses, views = zip(
        *[_viewer_camera(content, cameras, number, source) for number in range(len(cameras))], strict=True
    )
    return CameraPath(np.stack(poses), np.array(views), _aspect(content, cameras))


def _aspect(content: dict, cameras: list[dict]) -> float | None:
    """Return width over height of the pictures, or else of the first camera; None if neither is given."""
    sides = [content.get("render_width"), content.get("render_height")]
    if all(isinstance(side, int | float) and side > 0 for side in sides):
        return sides[0] / sides[1]
    aspect = cameras[0].get("aspect")
    return float(aspect) if isinstance(aspect, int | float) and aspect > 0 else None


def _viewer_camera(content: dict, cameras: list, number: int, source: str) -> tuple[np.ndarray, float]:
    """Return pose and vertical field of view in radians of one entry of `camera_path`: camera_to_world (16 numbers,
    OpenGL axes) and fov (vertical, degrees)."""
    camera = cameras[number]
    try:
        matrix = np.array(camera["camera_to_world"], float).reshape(4, 4)
        degrees = float(camera["fov"] if "fov" in camera else content["default_fov"])
    except (KeyError, TypeError, ValueError, AttributeError):
        keys = f"it has {', '.join(camera)}" if isinstance(camera, dict) else "it is no object"
        raise UserError(
            f"{source}: camera {number} should have 16 numbers camera_to_world and a number fov; {keys}"
        ) from None
    kind = camera.get("camera_type", content.get("camera_type"))
    if (kind.lower() if isinstance(kind, str) else kind) not in PERSPECTIVE:
        raise UserError(f"{source}: camera_type {kind} cannot be rendered; only perspective can")
    if 0 < degrees < SMALLEST_VIEW:
        raise UserError(
            f"{source}: the fov of camera {number} is {degrees:g}, but should be degrees; in radians, multiply it by 57.3"
        )
    if not 0 < degrees < 180:
        raise UserError(f"{source}: the fov of camera {number} is {degrees:g}, but should be degrees below 180")
    pose = to_pose(matrix, source, f"the camera_to_world of camera {number}")
    return _known(pose, source, f"camera {number}") @ OPENGL_TO_OPENCV, np.radians(degrees)


def _capture_cameras(content: dict, source: str) -> CameraPath:
    """Return the cameras of a transforms.json, in its order."""
    scale, poses, views = read_scale(content, Path(source)), [], []
    if all(isinstance(frame, dict) for frame in content["frames"]):
        check_keys(content, Path(source))
    for number, frame in enumerate(content["frames"]):
        if not isinstance(frame, dict) or frame.get("transform_matrix") is None:
            raise UserError(f"{source}: frame {number} has no transform_matrix")
        name = str(frame.get("file_path", f"frame {number}"))
        poses.append(_known(read_pose(frame["transform_matrix"], scale, Path(source), name), source, name))
        views.append(frame_field_of_view(content, frame, f"{source}: {name}"))
    if not poses:
        raise UserError(f"{source}: has no list of frames")
    return CameraPath(np.stack(poses), np.array(views))


def _exported_cameras(content: list, path: Path) -> CameraPath:
    """Read the list of {file_path, transform} of `ns-export cameras`. Its poses are in nerfstudio's normalised frame;
    the file NORMALISATION beside it converts them back. The field of view is the scene's."""
    undo, scale = np.eye(4), 1.0
    if path.with_name(NORMALISATION).is_file():
        given = read_json(path.with_name(NORMALISATION), "")
        try:
            undo = np.linalg.inv(np.concatenate([np.array(given["transform"], float), [[0, 0, 0, 1]]]))
            scale = float(given["scale"])
        except (TypeError, KeyError, ValueError, np.linalg.LinAlgError):
            raise UserError(f"{path.with_name(NORMALISATION)}: should hold a 3x4 transform and a scale") from None
        if not (np.isfinite(undo).all() and 0 < scale < np.inf):
            raise UserError(f"{path.with_name(NORMALISATION)}: should hold a 3x4 transform and a positive scale")
    else:
        warn(f"{path}: without its {NORMALISATION} beside it, cameras are taken to be in the capture's own frame")
    poses = []
    for number, camera in enumerate(content):
        values = camera.get("transform", camera.get("transform_matrix")) if isinstance(camera, dict) else None
        if values is None:
            raise UserError(f"{path}: camera {number} has no transform (3x4 numbers)")
        pose = _known(to_pose(values, path, f"the transform of camera {number}"), str(path), f"camera {number}").copy()
        pose[:3, 3] /= scale
        poses.append(undo @ pose @ OPENGL_TO_OPENCV)
    return CameraPath(np.stack(poses))


def _known(pose: np.ndarray, source: str, name: str) -> np.ndarray:
    if not np.isfinite(pose).all():
        raise UserError(f"{source}: {name} has no pose (not finite, or all zero)")
    return pose


def path_cameras(path: CameraPath, scene: Scene, width: int | None) -> Cameras:
    """Return the cameras of a path for images of the scene's aspect ratio. width: in pixels, None for the scene's
    own."""
    _warn_of_another_frame(path.camera_to_world, scene)
    size = scene.size if width is None else view_size(width, scene.raw_size)
    if path.aspect is not None and abs(path.aspect * size[0] / size[1] - 1) > OTHER_SHAPE:
        warn(
            f"the camera path is for pictures {path.aspect:.3g} times as wide as high; they are rendered in the scene's shape, "
            f"{size[1] / size[0]:.3g}, with the path's vertical field of view"
        )
    if path.field_of_view is None:
        Ks = np.repeat(scale_intrinsics(scene.Ks[:1], scene.raw_size, size), len(path), 0)
    else:
        Ks = np.stack([intrinsics(view, size) for view in path.field_of_view])
    return to_cameras(path.camera_to_world, Ks, scene.depth_range, size)


def _warn_of_another_frame(poses: np.ndarray, scene: Scene) -> None:
    """Warn of a path (N, 4, 4) that is farther from the scene's cameras than their far plane, or upside down."""
    apart = np.linalg.norm(poses[:, None, :3, 3] - scene.camera_to_world[None, :, :3, 3], axis=-1).min(1)
    off = apart > scene.depth_range[1]
    if off.any():
        warn(
            f"the camera path: {off.sum()} of its {len(poses)} cameras are farther from those of {scene.name} than these see, by up "
            f"to {apart.max():.3g} m; is it in metres, in the scene's own frame, and of this scene?"
        )
    ups = [-cameras[:, :3, 1].mean(0) for cameras in (poses, scene.camera_to_world)]
    if ups[0] @ ups[1] < UPSIDE_DOWN:
        warn(
            f"the camera path: its cameras stand upside down against those of {scene.name}; have its poses OpenGL axes?"
        )


def intrinsics(field_of_view: float, size: tuple[int, int]) -> np.ndarray:
    """Return the intrinsics (3, 3) of a camera with a vertical field of view in radians, and square pixels."""
    return centred_intrinsics(focal_length(field_of_view, size[0]), size)
