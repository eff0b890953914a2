"""Reading and writing files so that damage is noticed and never caused."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils.errors import UserError

REPOSITORY = Path(__file__).resolve().parent.parent
_END_MARKERS = {b"\x89PNG": b"IEND", b"\xff\xd8\xff": b"\xff\xd9"}  # png and jpeg say where they end


def read_color(path: Path) -> np.ndarray:
    """An image file as RGB, (h, w, 3) uint8. Raises UserError if it is missing, truncated or no image."""
    return _decode(path, cv2.IMREAD_COLOR)[..., ::-1]


def read_map(path: Path) -> np.ndarray:
    """A one-channel image file (depth, labels) in its own type, (h, w). Raises UserError like `read_color`."""
    values = _decode(path, cv2.IMREAD_UNCHANGED)
    if values.ndim != 2:
        raise UserError(f"{path}: should have one channel, but has {values.shape[2]}")
    return values


def _decode(path: Path, mode: int) -> np.ndarray:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such image") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    for start, end in _END_MARKERS.items():
        if data.startswith(start) and end not in data[-64:]:
            raise UserError(f"{path}: the image is truncated; copy or export it again")
    values = cv2.imdecode(np.frombuffer(data, np.uint8), mode) if data else None
    if values is None:
        raise UserError(f"{path}: not an image, or damaged; copy or export it again")
    return values


@contextlib.contextmanager
def atomic_write(path: Path):
    """Gives a temporary file beside `path` that takes its place when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp's own mode is private
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_image(path: Path, image: np.ndarray, quality: int = 92) -> None:
    """Writes RGB (h, w, 3) uint8 or one channel (h, w) uint8/uint16 as the format of the suffix, atomically."""
    image = image[..., ::-1] if image.ndim == 3 else image
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix in (".jpg", ".jpeg") else []
    encoded, data = cv2.imencode(path.suffix, image, options)
    if not encoded:
        raise OSError(f"{path}: could not be encoded")
    with atomic_write(path) as temporary:
        temporary.write_bytes(data.tobytes())


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text)


def read_json(path: Path, if_missing: str) -> Any:
    """The content of a JSON file. Raises UserError for one that is missing, with `if_missing` behind its path, or that
    is no JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: {if_missing}") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: is not valid JSON ({error})") from None


def find_file(name: str, *folders: Path) -> Path:
    """The file as named from here, from the repository, or by its last part in one of `folders`."""
    candidates = [Path(name), REPOSITORY / name, *[REPOSITORY / folder / Path(name).name for folder in folders]]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise UserError(f"{name}: there is no such file")
