"""Reading and writing files so that damage is noticed and never caused."""

from __future__ import annotations

import contextlib
import io
import json
import os
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from utils.errors import UserError
from utils.jpeg import find_damage

Value = TypeVar("Value")
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what it cannot read is told by an error

REPOSITORY = Path(__file__).resolve().parent.parent
JPEG, PNG, NPY = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\x93NUMPY"
TIFF, ORIENTATION = (b"II*\0", b"MM\0*"), 274
NOT_READ = {
    b"v/1\x01": "OpenEXR",
    b"ftyp": "HEIC or AVIF",
    b"PK\x03\x04": ".npz or ZIP",
    b"\x1f\x8b": "gzip",
}  # by their first bytes
NO_IMAGES = {  # what lies in an image's place, by what it starts with
    b"version https://git-lfs": "is a pointer of Git LFS; get the file itself by `git lfs pull`",
    b"<!doctype html": "is a web page, not an image; download it again",
    b"<html": "is a web page, not an image; download it again",
    b"<?xml": "is an XML file, not an image; download it again",
}
SEVERAL = "holds {} pictures, of which none is the one; export a single one"
ANIMATED = (b"GIF8", b"RIFF", *TIFF)  # formats that may hold several pictures
JPEG_END = b"\xff\xd9"
TRUNCATED = "the image is truncated; copy or export it again"
BLACK_BACKGROUND = 0  # what shows through transparent pixels, as in the database names (black_320)


def read_color(path: Path) -> np.ndarray:
    """Return the stored pixels of an image as RGB (h, w, 3) uint8; an orientation tag turns nothing, transparency is
    blended with black. Raises UserError if the file is missing, truncated, damaged or no image."""
    values = read_pixels(path)
    if values.dtype == np.uint16:
        if 0 < values.max() < 256:
            raise UserError(f"{path}: colour has 16 bits, but its values end at {values.max()}; export it with 8 bits")
        values = (values >> 8).astype(np.uint8)
    if values.dtype != np.uint8:
        raise UserError(f"{path}: colour should have 8 or 16 bits, but is {values.dtype}")
    if values.ndim == 2:
        return np.repeat(values[..., None], 3, -1)
    if values.shape[2] == 4:
        alpha = values[..., 3:].astype(np.float32) / 255
        return (values[..., :3] * alpha + BLACK_BACKGROUND * (1 - alpha)).round().astype(np.uint8)
    return values


def require_whole(path: Path) -> None:
    """Raise UserError for a JPEG whose codes cannot be, which decoders may pass over. Takes much longer than reading it."""
    data = _read_bytes(path)
    damage = find_damage(data) if data.startswith(JPEG) else None
    if damage:
        raise UserError(f"{path}: the image is damaged ({damage}); copy or export it again")


def read_map(path: Path) -> np.ndarray:
    """Return a map of numbers (depth, class ids) in its own type, (h, w): of one channel, of equal channels, or the
    indices of a palette. Raises UserError like `read_color`, and for JPEG, which changes numbers."""
    if _starts_with(path, JPEG):
        raise UserError(f"{path}: is a JPEG, which does not keep numbers; export it as PNG")
    values = read_pixels(path, indices=True)
    if values.ndim == 3:
        first = values[..., :1]
        if values.shape[2] == 4 and (values[..., 3] == np.iinfo(values.dtype).max).all():
            values = values[..., :3]
        if (values != first).any():
            raise UserError(f"{path}: should have one channel, but has {values.shape[2]} that differ")
        values = first[..., 0]
    return values


def read_pixels(path: Path, indices: bool = False) -> np.ndarray:
    """Return the stored pixels of an image or .npy file in their own type, (h, w) or (h, w, channels) with channels in
    the order RGBA. indices: of an image with a palette, the indices; of one with 1 to 4 bits, the numbers as stored."""
    data = _read_bytes(path)
    try:
        return decode_image(data, indices)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def decode_image(data: bytes, indices: bool = False) -> np.ndarray:
    """Decode the content of a file like `read_pixels`. Raises UserError without its name."""
    try:
        values = _decode(data, indices)
    except (ValueError, SyntaxError, OSError, EOFError, struct.error, Image.DecompressionBombError, cv2.error) as error:
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"the image is damaged ({first_line}); copy or export it again") from None
    if values is None:
        raise UserError("not an image, or damaged; copy or export it again")
    if values.ndim not in (2, 3) or not values.size:
        raise UserError(f"should be an image (h, w), but has the shape {values.shape}")
    return values


def image_size(path: Path) -> tuple[int, int]:
    """Return the (height, width) of the stored pixels, from the file's header. Raises UserError like `read_color`."""
    try:
        with Image.open(path) as image:
            if image.format != "TIFF":  # which Pillow would turn
                return image.size[::-1]
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        pass  # reading it says what is wrong
    return read_pixels(path).shape[:2]


def orientation(path: Path) -> int:
    """Return the orientation tag of an image, 1 (nothing is to be turned) if it has none or is none."""
    return _of_header(path, lambda image: image.getexif().get(ORIENTATION, 1), 1)


def read_palette(path: Path) -> bytes | None:
    """Return the colours of an image's palette; None if it has none."""
    return _of_header(path, lambda image: bytes(image.getpalette() or ()) if image.mode == "P" else None, None)


def _of_header(path: Path, told: Callable[[Image.Image], Value], otherwise: Value) -> Value:
    """Return what the header of an image tells, `otherwise` where Pillow cannot read it: reading the image says what is wrong."""
    try:
        with Image.open(path) as image:
            return told(image)
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError):
        return otherwise


def _starts_with(path: Path, start: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(start)) == start
    except OSError:
        return False


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such image") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _decode(data: bytes, indices: bool) -> np.ndarray | None:
    if not data:
        raise UserError("is empty; copy or export it again")
    start = data[:64].lstrip().lower()
    for mark, told in NO_IMAGES.items():
        if start.startswith(mark):
            raise UserError(told)
    for mark, format_name in NOT_READ.items():
        if mark in data[:8]:
            raise UserError(f"{format_name} is not read here; convert it (colour: PNG or JPEG, depth: PNG or .npy)")
    if data.startswith(JPEG):
        return _decode_jpeg(data)
    if data.startswith(NPY):
        return np.load(io.BytesIO(data), allow_pickle=False)
    if data.startswith(ANIMATED) or b"acTL" in data[:64]:
        with Image.open(io.BytesIO(data)) as image:
            if (count := getattr(image, "n_frames", 1)) > 1:
                raise UserError(SEVERAL.format(count))
    if data.startswith(TIFF):
        return _decode_any(_unturned(data))
    if data.startswith(PNG):
        bits, kind = _check_png(data)
        if indices and kind == "palette":
            return np.asarray(Image.open(io.BytesIO(data)))
        values = _decode_any(data)
        stretched = indices and kind == "grey" and bits < 8  # 4 bits arrive as 0, 17, … 255
        return values // (255 // (2**bits - 1)) if stretched and values is not None else values
    return _decode_any(data)


def _decode_jpeg(data: bytes) -> np.ndarray | None:
    """Decode a JPEG; damage is an error. OpenCV and Pillow would decode what is left, and garbage behind it."""
    try:
        color_space = simplejpeg.decode_jpeg_header(data)[2]
        if color_space in ("CMYK", "YCCK"):
            return _decode_any(data)
        if color_space == "Gray":
            return simplejpeg.decode_jpeg(data, "GRAY")[..., 0]
        return simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
        if JPEG_END not in data[-64:]:
            raise UserError(TRUNCATED) from None
        raise


def _unturned(data: bytes) -> bytes:
    """Return a TIFF file whose orientation tag says that nothing is to be turned: decoders honour it whatever they are
    told."""
    order = "<" if data.startswith(b"II") else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (entries,) = struct.unpack_from(f"{order}H", data, start)
    mended = bytearray(data)
    for at in range(start + 2, start + 2 + 12 * entries, 12):
        if struct.unpack_from(f"{order}H", data, at)[0] == ORIENTATION:
            struct.pack_into(f"{order}H", mended, at + 8, 1)
    return bytes(mended)


def _decode_any(data: bytes) -> np.ndarray | None:
    """Decode by OpenCV: stored pixels, whatever the orientation tag says."""
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if values is None or values.ndim == 2:
        return values
    return values[..., [2, 1, 0, 3][: values.shape[2]]]


def _check_png(data: bytes) -> tuple[int, str]:
    """Return the bits of a sample and what samples are: palette, grey or color. Raises an error if a checksum differs."""
    at, last = len(PNG), b""
    while last != b"IEND":
        length, last = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 8 + length
        if len(data) < end + 4:
            raise UserError(TRUNCATED)
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise ValueError(f"bytes of {last.decode('latin-1')} have changed")
        at = end + 4
    return data[24], {3: "palette", 0: "grey"}.get(data[25], "color")


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
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix.lower() in (".jpg", ".jpeg") else []
    encoded, data = cv2.imencode(path.suffix, image, options)
    if not encoded:
        raise OSError(f"{path}: could not be encoded")
    with atomic_write(path) as temporary:
        temporary.write_bytes(data.tobytes())


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text)


def read_text(path: Path, if_missing: str = "there is no such file") -> str:
    """Return the content of a text file, without the byte-order mark that some editors put first. Raises UserError if it
    is missing (with `if_missing` behind its path) or no text."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: {if_missing}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not text in UTF-8; save it as such") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def read_json(path: Path, if_missing: str) -> Any:
    """Return the content of a JSON file. Raises UserError like `read_text`, and if it is no JSON."""

    def without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for key, value in pairs:
            if key in content and content[key] != value:
                raise UserError(f"{path}: {key} stands twice, with different values; remove one")
            content[key] = value
        return content

    text = read_text(path, if_missing)
    try:
        return json.loads(text, object_pairs_hook=without_doubles)
    except ValueError as error:
        raise UserError(f"{path}: is not valid JSON ({error})") from None
    except RecursionError:
        raise UserError(f"{path}: is not valid JSON (nested too deeply)") from None


def find_file(name: str, *folders: Path) -> Path:
    """Return the file as named from here, from the repository, or by its last part in one of `folders`."""
    candidates = [Path(name), REPOSITORY / name, *[REPOSITORY / folder / Path(name).name for folder in folders]]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise UserError(f"{name}: there is no such file")
