"""Reading of image files as arrays (colour, maps of numbers) and of their headers, with detection of damage;
writing."""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import TiffImageFile

from utils.decoding import COMPRESSION, JPEG, JPEG_2000, ORIENTATION, TIFF, decode_image
from utils.errors import UserError
from utils.files import atomic_write
from utils.jpeg import find_damage

Value = TypeVar("Value")
LOSSY = (6, 7, 34712, 34892, 50001)  # TIFF compressions that change values
FEWEST_VALUES = 4096  # 16-bit colour whose maximum is below holds values of only 8, 10 or 12 bits
LINEAR = 0.9  # PNG gamma from which on colours are not sRGB
BLACK_BACKGROUND = 0  # value behind transparent pixels, as in the database names (black_320)


def read_color(path: Path) -> np.ndarray:
    """Return the stored pixels of an image as RGB (h, w, 3) uint8. Orientation tags are ignored, transparency is
    blended with black. Raise UserError if the file is missing, truncated, damaged or not an image."""
    values = read_pixels(path)
    if values.dtype == np.uint16:
        if 0 < values.max() < FEWEST_VALUES:
            raise UserError(f"{path}: colour has 16 bits, but its values end at {values.max()}; export it with 8 bits")
        values = (values >> 8).astype(np.uint8)
    if values.dtype != np.uint8:
        raise UserError(f"{path}: colour should have 8 or 16 bits, but is {values.dtype}")
    if values.ndim == 2 or values.shape[2] == 1:
        return np.repeat(values.reshape(*values.shape[:2], 1), 3, -1)
    if values.shape[2] not in (3, 4):
        raise UserError(f"{path}: colour should have 3 channels, but has {values.shape[2]}")
    color = _to_srgb(values[..., :3], path)
    if values.shape[2] == 4:
        alpha = values[..., 3:].astype(np.float32) / 255
        return (color * alpha + BLACK_BACKGROUND * (1 - alpha)).round().astype(np.uint8)
    return color


def _to_srgb(values: np.ndarray, path: Path) -> np.ndarray:
    """Convert colours (h, w, 3) from the file's colour profile to sRGB. Raise UserError for a linear PNG."""
    name, profile = color_profile(path)
    if name is None:
        return values
    if profile is None:
        raise UserError(f"{path}: colour should be sRGB, but is {name}; convert it")
    try:
        image = Image.fromarray(np.ascontiguousarray(values))
        converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"))
    except (ImageCms.PyCMSError, ValueError, OSError):
        raise UserError(f"{path}: its colour profile {name} cannot be converted to sRGB; convert it") from None
    return np.asarray(converted)


def color_profile(path: Path) -> tuple[str | None, ImageCms.ImageCmsProfile | None]:
    """Return the name of a file's colour profile, and the profile, where it is not sRGB's; (None, None) else."""
    info = _of_header(path, lambda image: dict(image.info) if image.mode in ("RGB", "RGBA", "P") else {}) or {}
    data, gamma = info.get("icc_profile"), info.get("gamma")
    if not data:
        return ("linear (gAMA)" if gamma and gamma > LINEAR and "srgb" not in info else None), None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        name = ImageCms.getProfileDescription(profile).strip()
        of_rgb = profile.profile.xcolor_space.strip() == "RGB"
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None, None  # an unreadable profile is ignored by other programs too
    return (name, profile) if of_rgb and "srgb" not in name.lower() else (None, None)


def require_whole(path: Path) -> None:
    """Raise UserError for a JPEG with invalid codes, which decoders may not report. Much slower than decoding."""
    data = _read_bytes(path)
    damage = find_damage(data) if data.startswith(JPEG) else None
    if damage:
        raise UserError(f"{path}: the image is damaged ({damage}); copy or export it again")


def read_map(path: Path) -> np.ndarray:
    """Return a map of numbers (depth, class ids) in its stored type, (h, w): one channel, equal channels, or the
    indices of a palette. Raise UserError like `read_color`, and for lossy formats such as JPEG."""
    lossy = _lossy(path)
    if lossy:
        raise UserError(f"{path}: is {lossy}, which does not keep numbers; export it as PNG")
    values = read_pixels(path, indices=True)
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim == 3:
        first = values[..., :1]
        if values.shape[2] == 4 and (values[..., 3] == np.iinfo(values.dtype).max).all():
            values = values[..., :3]
        if (values != first).any():
            raise UserError(f"{path}: should have one channel, but has {values.shape[2]} that differ")
        values = first[..., 0]
    return values


def read_pixels(path: Path, indices: bool = False) -> np.ndarray:
    """Return the stored pixels of an image or .npy file in their stored type, (h, w) or (h, w, channels) in the order
    RGBA. indices: return the indices of an image with a palette, and the unscaled numbers of one with 1 to 4 bits."""
    data = _read_bytes(path)
    try:
        return decode_image(data, indices)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def image_size(path: Path) -> tuple[int, int]:
    """Return the (height, width) of the stored pixels, from the file's header. Raise UserError like `read_color`."""
    try:
        with Image.open(path) as image:
            if image.format != "TIFF":  # Pillow applies the orientation tag of a TIFF
                return image.size[::-1]
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        pass  # read_pixels raises an error that says what is wrong
    return read_pixels(path).shape[:2]


def orientation(path: Path) -> int:
    """Return the orientation tag of an image; 1 (upright) if it has none or cannot be read."""
    return _of_header(path, lambda image: image.getexif().get(ORIENTATION, 1)) or 1


def read_palette(path: Path) -> bytes | None:
    """Return the colours of an image's palette; None if it has none."""
    return _of_header(path, lambda image: bytes(image.getpalette() or ()) if image.mode == "P" else None)


def _of_header(path: Path, told: Callable[[Image.Image], Value]) -> Value | None:
    """Return `told(image)` of an image of which only the header is read; None if Pillow cannot read it (`read_pixels`
    then raises the error)."""
    try:
        with Image.open(path) as image:
            return told(image)
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError):
        return None


def _lossy(path: Path) -> str | None:
    """Return the name of a lossy compression that an image uses, such as "a JPEG"; None if values are stored
    exactly."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        start = file.read(64)
        if start.startswith(JPEG):
            return "a JPEG"
        if start.startswith(b"RIFF") and b"VP8 " in start:
            return "a lossy WebP"
        if start.startswith(JPEG_2000):
            return "a JPEG 2000"
        if start.startswith(TIFF):
            tags = _of_header(path, lambda image: image.tag_v2 if isinstance(image, TiffImageFile) else None)
            return "a TIFF compressed as JPEG" if tags and tags.get(COMPRESSION) in LOSSY else None
    return None


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such image") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def write_image(path: Path, image: np.ndarray, quality: int = 92) -> None:
    """Write RGB (h, w, 3) uint8 or one channel (h, w) uint8/uint16 in the format of the suffix, atomically."""
    image = image[..., ::-1] if image.ndim == 3 else image
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix.lower() in (".jpg", ".jpeg") else []
    encoded, data = cv2.imencode(path.suffix, image, options)
    if not encoded:
        raise OSError(f"{path}: could not be encoded")
    with atomic_write(path) as temporary:
        temporary.write_bytes(data.tobytes())
