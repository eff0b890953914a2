"""Labelled point clouds and meshes of a scene, and their comparison with measured geometry."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree
from tqdm import tqdm

from dataset.scene import Scene
from dataset.view_selection import evenly
from network.rendering import RenderedView
from train.metrics import class_scores, confusion
from utils.errors import UserError
from utils.images import write_image
from utils.logging import say
from viewing.fusion import PosedPictures, drop_disputed, extract_mesh, merge_points
from viewing.paths import up_of
from viewing.ply import Geometry, write_ply
from viewing.preview import preview
from viewing.references import References
from viewing.session import Session

SURE = 0.15  # rendered depth is trusted if its relative deviation is below this
NEAR = 0.05  # metres: threshold of the F-score
DEPTHS = ("frames", "rendered")  # source of depth: that of the frames (measured or predicted), or rendered depth


def write_pointcloud(session: Session, out: Path, views: int, voxel: float, depth: str, score: bool) -> None:
    """Render views of the capture and merge the points they agree on into a labelled point cloud. depth: of DEPTHS."""
    _write(session, out, views, voxel, depth, score, partial(merge_points, voxel=voxel, device=session.device))


def write_mesh(session: Session, out: Path, views: int, voxel: float, depth: str, score: bool) -> None:
    """Render views of the capture and fuse them into a labelled mesh. depth: of DEPTHS."""
    _write(session, out, views, voxel, depth, score, mesher(session, voxel))


def mesher(session: Session, voxel: float) -> Callable[[PosedPictures], Geometry | None]:
    """Return the function that fuses views into a mesh."""
    progress = partial(tqdm, desc="fusing", unit="block")
    return partial(extract_mesh, voxel=voxel, device=session.device, progress=progress)


def _write(session: Session, out: Path, views: int, voxel: float, depth: str, score: bool, fuse) -> None:
    if out.suffix != ".ply":
        raise UserError(f"--out {out}: geometry is written as .ply")
    if score and not session.scene.has_depth:
        raise UserError(f"--score: {session.scene.name} has no depth to compare with")
    frames = evenly(session.scene.frame_ids, views)
    out.parent.mkdir(parents=True, exist_ok=True)
    geometry = build(session, frames, out.parent, depth, fuse)
    if geometry is None or not len(geometry):
        raise UserError(f"no two of {len(frames)} views agree on anything: is the model trained, and on such scenes?")
    about = {"scene": session.scene.name, "views": len(frames), "depth": depth, "voxel": voxel, "points": len(geometry)}
    if score:
        about["score"] = compare(geometry, *measured(session.scene, frames, voxel, session.device), session)
        say(_score_line(about["score"]))
    write_ply(out, geometry, session.classes, about)
    picture = out.with_suffix(".png")
    write_image(picture, preview(geometry, session.classes, up_of(session.scene.camera_to_world)))
    faces = "" if geometry.faces is None else f", {len(geometry.faces):,} triangles"
    say(f"{len(geometry):,} points{faces}: {out}; classes: {out.with_suffix('.json').name}; preview: {picture.name}")


def build(session: Session, frames: list[str], folder: Path, depth: str, fuse) -> Geometry | None:
    """Render frames and fuse the depth on which at least two of them agree. folder: for temporary files. None: no
    agreement."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".views.") as place:
        pictures = render_pictures(session, frames, Path(place), depth)
        drop_disputed(pictures, session.device)
        return fuse(pictures) if pictures.depth.any() else None


def render_pictures(session: Session, frames: list[str], folder: Path, depth: str) -> PosedPictures:
    """Render frames of the capture from their own cameras. The pictures are memory-mapped files in `folder`."""
    cameras = session.scene.cameras(frames)
    references = References(session.scene, session.references)
    shape = (len(frames), *cameras.size)

    def array(name: str, kind, *channels: int) -> np.ndarray:
        return np.lib.format.open_memmap(folder / f"{name}.npy", "w+", kind, (*shape, *channels))

    number = len(session.classes.names) - 1 if session.classes else 0
    result = PosedPictures(
        cameras.to(session.device),
        array("depth", np.float32),
        array("color", np.uint8, 3),
        array("classes", np.uint8, number) if number else None,
    )
    for i in tqdm(range(len(frames)), desc="rendering", unit="view"):
        camera = cameras.one(i)
        chosen = references.choose(camera)
        view = session.render(camera, [(1.0, chosen)])
        own = trusted_depth(view).view(cameras.size) if depth == "rendered" else session.frame_depth(frames[i], chosen)
        result.depth[i] = own.cpu().numpy()
        result.color[i] = _bytes(view.color).view(*cameras.size, 3).cpu().numpy()
        if number:
            result.classes[i] = (
                _bytes(view.logits.float().softmax(-1)[:, :number]).view(*cameras.size, -1).cpu().numpy()
            )
    return result


def trusted_depth(view: RenderedView) -> torch.Tensor:
    """Return the depth (R,) of a view in metres, 0 where its deviation is large or no reference sees the surface."""
    return torch.where(view.seen & (view.deviation < SURE * view.depth), view.depth, 0).float()


def _bytes(values: torch.Tensor) -> torch.Tensor:
    return (values.clamp(0, 1) * 255).round().to(torch.uint8)


def measured(scene: Scene, frames: list[str], voxel: float, device) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the points that the depth maps of frames show, one in each voxel: positions (N, 3), and classes (N,) or
    None."""
    positions, classes = [], []
    for frame in tqdm(frames, desc="measured", unit="view", leave=False):
        views = scene.views([frame], depth=True, labels=True).to(device)
        shown = PosedPictures(views.cameras, views.depth[:, 0].cpu().numpy(), np.empty(0), None)
        known = views.depth.flatten() > 0
        positions.append(shown.points(0, device)[known].cpu().numpy())
        if views.labels is not None:
            classes.append(views.labels.flatten()[known].cpu().numpy())
    together = np.concatenate(positions)
    _, first = np.unique(np.floor(together / voxel).astype(np.int64), axis=0, return_index=True)
    return together[first], np.concatenate(classes)[first] if classes else None


def compare(
    geometry: Geometry, positions: np.ndarray, classes: np.ndarray | None, session: Session
) -> dict[str, float]:
    """Compare geometry with measured points. Return accuracy (mean distance to the measured points) and completeness
    (mean distance of the measured points to the geometry) in cm, the F-score at 5 cm, and, with classes, the mIoU of
    the points within 5 cm of a measured one."""
    off, nearest = cKDTree(positions).query(geometry.positions, workers=-1)
    missed, _ = cKDTree(geometry.positions).query(positions, workers=-1)
    precision, recall = float((off < NEAR).mean()), float((missed < NEAR).mean())
    score = {
        "accuracy_cm": 100 * float(off.mean()),
        "completeness_cm": 100 * float(missed.mean()),
        "f_score": 2 * precision * recall / max(precision + recall, 1e-9),
    }
    if classes is not None and geometry.classes is not None:
        met = off < NEAR
        count = len(session.classes.names) - 1
        matrix = confusion(geometry.classes[met], classes[nearest[met]], count)
        score["miou"] = class_scores(matrix)["miou"]
    return score


def _score_line(score: dict[str, float]) -> str:
    line = (
        f"accuracy {score['accuracy_cm']:.1f} cm, completeness {score['completeness_cm']:.1f} cm, "
        f"F-score at 5 cm {score['f_score']:.3f}"
    )
    return line + (f", mIoU {score['miou']:.3f}" if "miou" in score else "")
