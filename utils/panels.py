"""Panels of titled pictures, hatching of unseen pixels, and class legends."""

from __future__ import annotations

import cv2
import numpy as np

BACKGROUND, INK = 255, (30, 30, 30)
HATCH, STRIPES = (110, 150), 60  # grey levels of the hatch, and its number of stripes across a picture
TITLE_HEIGHT, GAP, SMALLEST_CELL = 22, 6, 240


def text(image: np.ndarray, words: str, x: int, y: int, scale: float = 0.42) -> None:
    """Draw text onto an image in place; (x, y) is the start of the base line."""
    cv2.putText(image, words, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, INK, 1, cv2.LINE_AA)


def mark_unseen(picture: np.ndarray, seen: np.ndarray | None) -> np.ndarray:
    """Return a picture (h, w, 3) uint8 with a grey hatch where `seen` (h, w) bool is false; None: all is seen."""
    if seen is None:
        return picture
    rows, columns = np.indices(seen.shape)
    stripe = (rows + columns) // max(1, seen.shape[1] // STRIPES) % 2
    return np.where(seen[..., None], picture, np.array(HATCH, np.uint8)[stripe][..., None])


def grid(rows: list[list[tuple[str, np.ndarray]]]) -> np.ndarray:
    """Arrange titled pictures (h, w, 3) uint8 of one size in rows; small ones are enlarged so that titles can be
    read."""
    height, width = rows[0][0][1].shape[:2]
    factor = max(1, -(-SMALLEST_CELL // width))
    cell_height, cell_width = height * factor + TITLE_HEIGHT, width * factor + GAP
    columns = max(len(row) for row in rows)
    canvas = np.full((len(rows) * cell_height + GAP, columns * cell_width + GAP, 3), BACKGROUND, np.uint8)
    for i, row in enumerate(rows):
        for j, (title, picture) in enumerate(row):
            top, left = i * cell_height + TITLE_HEIGHT, j * cell_width + GAP
            text(canvas, title, left, top - 6)
            picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
            canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return canvas


def legend(names: list[str], colors: np.ndarray, width: int) -> np.ndarray:
    """Draw colour patches (N, 3) with their names, in as many rows as `width` pixels need."""
    widths = [34 + cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)[0][0] for name in names]
    places, x, y = [], GAP, 0
    for needed in widths:
        if x + needed > width and x > GAP:
            x, y = GAP, y + TITLE_HEIGHT
        places.append((x, y))
        x += needed
    canvas = np.full((y + TITLE_HEIGHT, width, 3), BACKGROUND, np.uint8)
    for name, color, (x, y) in zip(names, colors, places, strict=True):
        canvas[y + 4 : y + 18, x : x + 18] = color
        text(canvas, name, x + 22, y + 16)
    return canvas
