"""Colours for classes and depth."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np


def distinct_colors(count: int) -> np.ndarray:
    """Return `count` distinguishable colours (count, 3) uint8, with hues a golden angle apart."""
    golden = 0.618033988749895
    rows = [colorsys.hsv_to_rgb(i * golden % 1, (0.55, 0.8, 0.4)[i % 3], (0.95, 0.7)[i % 2]) for i in range(count)]
    return (np.array(rows) * 255).round().astype(np.uint8)


def color_depth(depth: np.ndarray, near: float, far: float) -> np.ndarray:
    """Map depth in metres (h, w) to colours (h, w, 3) uint8 (Turbo): warm near, dark far, black where 0 (unknown)."""
    scaled = np.clip((far - depth) / max(far - near, 1e-6), 0, 1)
    colors = cv2.applyColorMap((scaled * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    return np.where((depth > 0)[..., None], colors, 0).astype(np.uint8)
