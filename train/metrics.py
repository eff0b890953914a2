"""Metrics: functions of prediction and target that return numbers. Those of classes are computed from confusion
matrices.

A confusion matrix is (K, K+1) int64: rows are true classes, columns predicted classes, the last column "invalid".
Pixels whose true class is ignored are not counted.
"""

from __future__ import annotations

import cv2
import numpy as np
from skimage.metrics import structural_similarity

SSIM_WINDOW = 11  # pixels a side
# At an edge the largest depth in a window of so many pixels a side is over 1.1 times the smallest.
EDGE_WINDOW, EDGE_RATIO = 5, 1.1


def psnr(prediction: np.ndarray, target: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in dB of uint8 colours (..., 3). The error is at least half a grey
    level."""
    error = np.square(prediction.astype(np.float64) - target).mean()
    return float(10 * np.log10(255**2 / max(error, 0.25)))


def depth_error(prediction: np.ndarray, target: np.ndarray) -> float | None:
    """Return the median of |prediction - target| / target of depths (h, w) where the target is known (not 0); None if
    it is unknown everywhere. The error of an unknown prediction (0) is 1."""
    known = target > 0
    if not known.any():
        return None
    return float(np.median(np.abs(prediction[known] - target[known]) / target[known]))


def depth_edges(depth: np.ndarray) -> np.ndarray:
    """Return the pixels of a depth map (h, w), 0 where unknown, that lie within two pixels of a jump: (h, w) bool."""
    window = np.ones((EDGE_WINDOW, EDGE_WINDOW), np.uint8)
    farthest = cv2.dilate(depth.astype(np.float32), window)
    nearest = cv2.erode(np.where(depth > 0, depth, np.inf).astype(np.float32), window)
    return (depth > 0) & (farthest / EDGE_RATIO > nearest)


def ssim(prediction: np.ndarray, target: np.ndarray) -> float:
    """Return the structural similarity of uint8 images (h, w, 3), uniform window of 11 pixels."""
    return ssim_and_map(prediction, target)[0]


def ssim_and_map(prediction: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray]:
    """Return `ssim`, and that of the window around each pixel, (h, w)."""
    smallest = min(target.shape[:2])
    window = min(SSIM_WINDOW, smallest if smallest % 2 else smallest - 1)
    mean, values = structural_similarity(
        target, prediction, win_size=window, channel_axis=-1, data_range=255, full=True
    )
    return float(mean), values.mean(-1)


def confusion(prediction: np.ndarray, target: np.ndarray, classes: int) -> np.ndarray:
    """Return (K, K+1) counts of predicted classes 0…K at pixels of true classes 0…K-1 (K is ignored)."""
    counted = target < classes
    index = target[counted].astype(np.int64) * (classes + 1) + prediction[counted]
    return np.bincount(index.ravel(), minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def drop_invalid(matrix: np.ndarray) -> np.ndarray:
    """Return the matrix without pixels predicted as "invalid", which published results leave out."""
    return np.concatenate([matrix[:, :-1], np.zeros_like(matrix[:, -1:])], 1)


def class_ious(matrix: np.ndarray) -> np.ndarray:
    """Return the intersection over union (K,), nan for classes that do not occur in truth."""
    hits = np.diagonal(matrix).astype(float)
    truth, predicted = matrix.sum(1), matrix[:, :-1].sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(truth > 0, hits / (truth + predicted - hits), np.nan)


def class_scores(matrix: np.ndarray) -> dict[str, float]:
    """Return miou, total_accuracy and class_average_accuracy over the classes that occur in truth; 0 if none does."""
    truth = matrix.sum(1)
    there = truth > 0
    if not there.any():
        return {"miou": 0.0, "total_accuracy": 0.0, "class_average_accuracy": 0.0}
    hits = np.diagonal(matrix)
    return {
        "miou": float(np.mean(class_ious(matrix)[there])),
        "total_accuracy": float(hits.sum() / truth.sum()),
        "class_average_accuracy": float(np.mean(hits[there] / truth[there])),
    }


def commonest_class(matrices: list[np.ndarray]) -> list[np.ndarray]:
    """Return the confusion matrices of a constant prediction: the most frequent true class of all pictures."""
    commonest = int(np.sum(matrices, axis=0).sum(1).argmax())
    constant = [np.zeros_like(matrix) for matrix in matrices]
    for new, matrix in zip(constant, matrices, strict=True):
        new[:, commonest] = matrix.sum(1)
    return constant
