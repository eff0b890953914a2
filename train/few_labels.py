"""Report of the labels that `few_labels` leaves, as a line and a picture, at the start of a run."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dataset.few_labels import FewLabels
from dataset.render_dataset import TrainingSet
from dataset.scene import Scene
from dataset.view_selection import evenly
from utils.images import write_image
from utils.logging import say
from utils.panels import grid, legend, mark_unseen

PICTURE = "few_labels.png"
SHOWN_FRAMES = 4
SPARSE, DOT = 0.02, 5  # labels on less than this share of the pixels are drawn as squares of so many pixels a side


def show_few_labels(training_set: TrainingSet, colors: np.ndarray, folder: Path) -> None:
    """Print the share of label pixels that is left, and draw some frames as <folder>/few_labels.png. Do nothing if all
    labels are left. colors: (K+1, 3) uint8."""
    few = [(scene, left) for scene, left in zip(training_set.scenes, training_set.few_labels, strict=True) if left]
    if not few:
        return
    share = float(np.mean([left.share_left(scene) for scene, left in few]))
    frames = sum(len(left.frames) for _, left in few)
    say(
        f"few_labels: {share:.2g} of the label pixels are left, in {frames} frames of {len(few)} scenes; see {folder / PICTURE}"
    )
    write_image(folder / PICTURE, panel(*few[0], colors))


def panel(scene: Scene, few: FewLabels, colors: np.ndarray) -> np.ndarray:
    """Draw labelled frames of a scene: colour, all labels, and the labels that are left; pixels without labels are
    hatched."""
    rows, present = [], np.empty(0, np.uint8)
    frames = evenly(few.frames, SHOWN_FRAMES)
    views = scene.views(frames, labels=True)
    for frame, color, labels in zip(
        frames, views.images.permute(0, 2, 3, 1).numpy(), views.labels.numpy(), strict=True
    ):
        left = few.of_frame(labels, frame)
        present = np.union1d(present, labels)
        if (left != few.ignore).mean() < SPARSE:
            left = cv2.erode(left, np.ones((DOT, DOT), np.uint8))  # the minimum, and `ignore` is the largest number
        pictures = [mark_unseen(colors[values], values != few.ignore) for values in (labels, left)]
        rows.append([(f"frame {frame}", color), ("labels, all", pictures[0]), ("labels, left", pictures[1])])
    picture, present = grid(rows), np.setdiff1d(present, [few.ignore])
    names = [scene.labels.names[i] for i in present]
    return np.concatenate([picture, legend(names, colors[present], picture.shape[1])])
