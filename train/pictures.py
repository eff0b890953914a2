"""Rendered images as arrays, and the panels that show them beside the truth."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from dataset.labels import LabelSet
from dataset.views import Batch
from network.rendering import RenderedView
from utils.colors import color_depth
from utils.files import write_image
from utils.panels import grid, legend


class Picture(NamedTuple):
    """color (h, w, 3) uint8; classes (h, w), K for "invalid" or ignored, or None."""

    color: np.ndarray
    classes: np.ndarray | None


class Frame(NamedTuple):
    """A rendered test frame: what was asked for, what came, and the same as pictures. first: of its scene."""

    batch: Batch
    rendering: RenderedView
    prediction: Picture
    truth: Picture
    first: bool


def to_picture(rendering: RenderedView, size: tuple[int, int]) -> Picture:
    """A whole rendered image, as uint8 and class numbers (K is "invalid")."""
    color = (rendering.color.clamp(0, 1) * 255).round().to(torch.uint8).reshape(*size, 3).cpu().numpy()
    logits = rendering.logits
    return Picture(color, None if logits is None else logits.argmax(-1).reshape(size).cpu().numpy())


def truth_of(batch: Batch) -> Picture:
    """What the query image shows."""
    color = (batch.query.images[0].permute(1, 2, 0) * 255).round().to(torch.uint8).cpu().numpy()
    labels = batch.query.labels
    return Picture(color, None if labels is None else labels[0].cpu().numpy())


def counted(picture: Picture, truth: Picture, batch: Batch, ignore: int) -> tuple[Picture, Picture]:
    """Both pictures such that where the query's mask is 0 there is no error and no class to be scored."""
    if batch.query.mask is None:
        return picture, truth
    hidden = batch.query.mask[0, 0].cpu().numpy() == 0
    color = np.where(hidden[..., None], truth.color, picture.color)
    classes = None if truth.classes is None else np.where(hidden, ignore, truth.classes)
    return picture._replace(color=color), truth._replace(classes=classes)


def make_panel(frame: Frame, colors: np.ndarray, labels: LabelSet | None) -> np.ndarray:
    """Truth over prediction: colour, classes and depth, with a legend of the classes that occur.

    colors: (K+1, 3) uint8 of the classes.
    """
    batch, rendering, picture, truth, _ = frame
    size, (near, far) = batch.query.cameras.size, batch.query.cameras.depth_range[0].tolist()
    depth = rendering.depth.reshape(size).cpu().numpy()
    far = min(far, float(np.quantile(depth, 0.99)) * 1.1 + 1e-3)
    rows = [[("truth", truth.color)], [("prediction", picture.color)]]
    if picture.classes is not None and truth.classes is not None:
        rows[0].append(("classes, truth", colors[truth.classes]))
        rows[1].append(("classes, prediction", colors[picture.classes]))
    if batch.query.depth is not None:
        rows[0].append(("depth, truth", color_depth(batch.query.depth[0, 0].cpu().numpy(), near, far)))
    rows[1].append((f"depth, {near:.1f} to {far:.1f} m", color_depth(depth, near, far)))
    panel = grid(rows)
    if labels is None or picture.classes is None or truth.classes is None:
        return panel
    present = np.union1d(np.unique(truth.classes), np.unique(picture.classes))
    names = [*labels.names, "invalid"]
    return np.concatenate([panel, legend([names[i] for i in present], colors[present], panel.shape[1])])


class PanelWriter:
    """Writes the panel of each frame it is called with as <folder>/<scene>/<frame>.jpg, in the background.

    A context manager: on leaving it waits for what is still being written, and raises what went wrong.
    """

    def __init__(self, folder: Path, colors: np.ndarray, labels: LabelSet | None):
        self.folder, self.colors, self.labels = folder, colors, labels
        self._threads = ThreadPoolExecutor(4)
        self._pending: list[Future] = []

    def __call__(self, frame: Frame) -> None:
        self._pending.append(self._threads.submit(self._write, frame))

    def _write(self, frame: Frame) -> None:
        path = self.folder / frame.batch.scene.replace("/", "_") / f"{frame.batch.frame}.jpg"
        write_image(path, make_panel(frame, self.colors, self.labels))

    def __enter__(self) -> PanelWriter:
        return self

    def __exit__(self, *_) -> None:
        self._threads.shutdown()
        for job in self._pending:
            job.result()
