"""Decoding of image files of any format to their stored pixels; damage is an error."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib

import cv2
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from utils.errors import UserError

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # damage is reported by a UserError

JPEG, PNG, NPY = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\x93NUMPY"
JPEG_2000 = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")  # in its box, and as a bare stream
TIFF, ORIENTATION = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), 274
COMPRESSION = 259  # a tag of TIFF, as are:
STRIPS, TILES = (273, 279), (324, 325)  # of parts, where they begin and how long they are
LZW, DEFLATE = 5, (8, 32946)  # of a TIFF's compressions
NOT_READ = {
    b"v/1\x01": "OpenEXR",
    b"ftyp": "HEIC or AVIF",
    b"PK\x03\x04": ".npz or ZIP",
    b"\x1f\x8b": "gzip",
    b"#?R": "Radiance HDR",
}  # by their first bytes
NO_IMAGES = {  # what lies in an image's place, by what it starts with
    b"version https://git-lfs": "is a pointer of Git LFS; get the file itself by `git lfs pull`",
    b"<!doctype html": "is a web page, not an image; download it again",
    b"<html": "is a web page, not an image; download it again",
    b"<?xml": "is an XML file, not an image; download it again",
}
SEVERAL = "holds {} pictures, of which none is the one; export a single one"
ANIMATED = (b"GIF8", b"RIFF", *TIFF)  # formats that may hold several pictures, beside PNG
JPEG_END = b"\xff\xd9"
TRUNCATED = "the image is truncated; copy or export it again"


def decode_image(data: bytes, indices: bool = False) -> np.ndarray:
    """Return the stored pixels in the content of a file, see `images.read_pixels`. Raise UserError without its name."""
    try:
        values = _decode(data, indices)
    except (
        ValueError,
        SyntaxError,
        OSError,
        EOFError,
        struct.error,
        zlib.error,
        Image.DecompressionBombError,
        cv2.error,
    ) as error:
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"the image is damaged ({first_line}); copy or export it again") from None
    if values is None:
        raise UserError("not an image, or damaged; copy or export it again")
    if values.ndim not in (2, 3) or not values.size:
        raise UserError(f"should be an image (h, w), but has the shape {values.shape}")
    return values


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
    if data.startswith(ANIMATED):
        _check_pictures(data)
    bits = _check_png(data) if data.startswith(PNG) else 8
    if indices and (numbers := _indices(data)) is not None:
        return numbers
    values = _decode_any(_unturned(data) if data.startswith(TIFF) else data)
    stretched = indices and bits < 8  # 4 bits arrive as 0, 17, … 255
    return values // (255 // (2**bits - 1)) if stretched and values is not None else values


def _decode_jpeg(data: bytes) -> np.ndarray | None:
    """Decode a JPEG; damage is an error. OpenCV and Pillow would return the undamaged part and garbage after it."""
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


def _check_pictures(data: bytes) -> None:
    """Raise an error for a GIF, WebP or TIFF file with several pictures, colours other than RGB, or damage that OpenCV
    does not report."""
    with contextlib.suppress(UnidentifiedImageError), Image.open(io.BytesIO(data)) as image:
        if (count := getattr(image, "n_frames", 1)) > 1:
            raise UserError(SEVERAL.format(count))
        if image.mode == "LAB":
            raise UserError("its colours are CIELAB; export it as RGB")
        if not isinstance(image, TiffImageFile):
            return
        tags = image.tag_v2
        if tags.get(COMPRESSION) == LZW:
            image.load()
        elif tags.get(COMPRESSION) in DEFLATE:
            begins, lengths = STRIPS if STRIPS[0] in tags else TILES
            for begin, length in zip(tags[begins], tags[lengths], strict=True):
                zlib.decompress(data[begin : begin + length])  # which has a checksum


def _indices(data: bytes) -> np.ndarray | None:
    """Return the numbers of an image with a palette, (h, w) uint8; None without a palette."""
    with contextlib.suppress(UnidentifiedImageError), Image.open(io.BytesIO(data)) as image:
        if image.mode == "P":
            return np.asarray(image)
    return None


def _unturned(data: bytes) -> bytes:
    """Return a TIFF file with an orientation tag of 1 (upright): OpenCV applies the tag even when told not to."""
    order, big = "<" if data.startswith(b"II") else ">", 43 in data[2:4]
    length, count, first, value = ("Q", "Q", 8, 12) if big else ("I", "H", 4, 8)  # of BigTIFF: entries are longer
    (start,) = struct.unpack_from(f"{order}{length}", data, first)
    (entries,) = struct.unpack_from(f"{order}{count}", data, start)
    begin, size = start + struct.calcsize(f"{order}{count}"), 20 if big else 12
    mended = bytearray(data)
    for at in range(begin, begin + size * entries, size):
        if struct.unpack_from(f"{order}H", data, at)[0] == ORIENTATION:
            struct.pack_into(f"{order}H", mended, at + value, 1)
    return bytes(mended)


def _decode_any(data: bytes) -> np.ndarray | None:
    """Decode by OpenCV, without applying the orientation tag."""
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if values is None or values.ndim == 2:
        return values
    return values[..., [2, 1, 0, 3][: values.shape[2]]]


def _check_png(data: bytes) -> int:
    """Return the bits of a sample. Raise an error if a checksum differs, or the file holds several pictures."""
    at, last = len(PNG), b""
    while last != b"IEND":
        length, last = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 8 + length
        if len(data) < end + 4:
            raise UserError(TRUNCATED)
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise ValueError(f"bytes of {last.decode('latin-1')} have changed")
        if last == b"acTL" and (count := int.from_bytes(data[at + 8 : at + 12], "big")) > 1:
            raise UserError(SEVERAL.format(count))
        at = end + 4
    return data[24]
