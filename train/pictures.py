"""Rendered and true images as arrays, and panels that compare them."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from dataset.labels import LabelSet
from dataset.views import Batch, Views
from network.rendering import RenderedView
from utils.colors import color_depth
from utils.images import write_image
from utils.panels import grid, legend, mark_unseen


class Picture(NamedTuple):
    """A rendered or true view.

    color: (h, w, 3) uint8. classes: (h, w), K for "invalid" or ignored; None without classes. depth: (h, w) metres, 0
    where unknown; None without depth. seen: (h, w) bool, false where no reference sees the surface and the result is a
    guess; None: all is seen. probabilities: (h, w, K+1) float32 of the classes, if asked for.
    """

    color: np.ndarray
    classes: np.ndarray | None
    depth: np.ndarray | None = None
    seen: np.ndarray | None = None
    probabilities: np.ndarray | None = None


class Comparison(NamedTuple):
    """A test frame as rendered by `network` and as it truly is, and its batch. first: it is the first frame of its
    scene."""

    batch: Batch
    network: str
    prediction: Picture
    truth: Picture
    first: bool


def to_uint8(color: torch.Tensor) -> np.ndarray:
    """Convert colours in [0, 1] to uint8."""
    return (color.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def to_picture(rendering: RenderedView, size: tuple[int, int], probabilities: bool = False) -> Picture:
    """Convert a rendered view of `size` (h, w) to arrays. probabilities: those of the classes too."""
    logits = rendering.logits
    with_probabilities = probabilities and logits is not None
    return Picture(
        color=to_uint8(rendering.color.float().reshape(*size, 3)),
        classes=None if logits is None else logits.argmax(-1).reshape(size).cpu().numpy(),
        depth=rendering.depth.float().reshape(size).cpu().numpy(),
        seen=rendering.seen.reshape(size).cpu().numpy(),
        probabilities=logits.float().softmax(-1).reshape(*size, -1).cpu().numpy() if with_probabilities else None,
    )


def first_picture(views: Views) -> Picture:
    """Convert the first of some views, with the labels and depth that it has, to arrays."""
    return Picture(
        color=to_uint8(views.images[0].permute(1, 2, 0)),
        classes=None if views.labels is None else views.labels[0].cpu().numpy(),
        depth=None if views.depth is None else views.depth[0, 0].cpu().numpy(),
    )


def counted(picture: Picture, truth: Picture, batch: Batch, ignore: int) -> tuple[Picture, Picture]:
    """Return both pictures such that pixels where the query's mask is 0 are not scored: colours are equal, classes
    ignored, depth unknown."""
    if batch.query.mask is None:
        return picture, truth
    hidden = batch.query.mask[0, 0].cpu().numpy() == 0
    color = np.where(hidden[..., None], truth.color, picture.color)
    classes = None if truth.classes is None else np.where(hidden, ignore, truth.classes)
    depth = None if truth.depth is None else np.where(hidden, 0, truth.depth)
    return picture._replace(color=color), truth._replace(classes=classes, depth=depth)


def make_panel(comparison: Comparison, colors: np.ndarray, labels: LabelSet | None) -> np.ndarray:
    """Return colour, classes and depth, the truth above the prediction, with a legend of the classes that occur. The
    prediction is hatched where no reference sees anything. colors: (K+1, 3) uint8 of the classes.
    """
    batch, picture, truth = comparison.batch, comparison.prediction, comparison.truth
    near, far = batch.query.cameras.depth_range[0].tolist()
    far = min(far, float(np.quantile(picture.depth, 0.99)) * 1.1 + 1e-3)
    rows = [[("truth", truth.color)], [(comparison.network, mark_unseen(picture.color, picture.seen))]]
    if picture.classes is not None and truth.classes is not None:
        rows[0].append(("classes, truth", colors[truth.classes]))
        rows[1].append((f"classes, {comparison.network}", mark_unseen(colors[picture.classes], picture.seen)))
    if truth.depth is not None:
        rows[0].append(("depth, truth", color_depth(truth.depth, near, far)))
    rows[1].append(
        (f"depth, {near:.1f} to {far:.1f} m", mark_unseen(color_depth(picture.depth, near, far), picture.seen))
    )
    panel = grid(rows)
    if labels is None or picture.classes is None or truth.classes is None:
        return panel
    present = np.union1d(np.unique(truth.classes), np.unique(picture.classes))
    names = [*labels.names, "invalid"]
    return np.concatenate([panel, legend([names[i] for i in present], colors[present], panel.shape[1])])


class PanelWriter:
    """Writes the panel of each comparison it is called with as <folder>/<scene>/<frame>.jpg, in the background.

    A context manager: on exit it waits until all panels are written, and raises the first error.
    """

    def __init__(self, folder: Path, colors: np.ndarray, labels: LabelSet | None):
        self.folder, self.colors, self.labels = folder, colors, labels
        self._threads = ThreadPoolExecutor(4)
        self._pending: list[Future] = []

    def __call__(self, comparison: Comparison) -> None:
        self._pending.append(self._threads.submit(self._write, comparison))

    def _write(self, comparison: Comparison) -> None:
        path = self.folder / comparison.batch.scene.replace("/", "_") / f"{comparison.batch.frame}.jpg"
        write_image(path, make_panel(comparison, self.colors, self.labels))

    def __enter__(self) -> PanelWriter:
        return self

    def __exit__(self, *_) -> None:
        self._threads.shutdown()
        for job in self._pending:
            job.result()
