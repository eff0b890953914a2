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
from PIL import Image, ImageCms, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from utils.errors import UserError
from utils.jpeg import find_damage

Value = TypeVar("Value")
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what it cannot read is told by an error

REPOSITORY = Path(__file__).resolve().parent.parent
JPEG, PNG, NPY = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\x93NUMPY"
TIFF, ORIENTATION = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), 274
COMPRESSION, STRIPS, TILES = (
    259,
    (273, 279),
    (324, 325),
)  # tags of TIFF: of parts, where they begin and how long they are
LZW, DEFLATE, LOSSY = 5, (8, 32946), (6, 7, 34712, 34892, 50001)  # of a TIFF's compressions
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
FEWEST_VALUES = 4096  # of colour in 16 bits: what ends below holds 8, 10 or 12
LINEAR = 0.9  # of a PNG's gamma: from here on its colours are no sRGB
JPEG_END = b"\xff\xd9"
TRUNCATED = "the image is truncated; copy or export it again"
BLACK_BACKGROUND = 0  # what shows through transparent pixels, as in the database names (black_320)


def read_color(path: Path) -> np.ndarray:
    """Return the stored pixels of an image as RGB (h, w, 3) uint8; an orientation tag turns nothing, transparency is
    blended with black. Raises UserError if the file is missing, truncated, damaged or no image."""
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
    """Return the colours (h, w, 3) that a file's profile says, in sRGB. Raises UserError for a PNG that says it is linear."""
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
        return None, None  # what no program can read, none honours
    return (name, profile) if of_rgb and "srgb" not in name.lower() else (None, None)


def require_whole(path: Path) -> None:
    """Raise UserError for a JPEG whose codes cannot be, which decoders may pass over. Takes much longer than reading it."""
    data = _read_bytes(path)
    damage = find_damage(data) if data.startswith(JPEG) else None
    if damage:
        raise UserError(f"{path}: the image is damaged ({damage}); copy or export it again")


def read_map(path: Path) -> np.ndarray:
    """Return a map of numbers (depth, class ids) in its own type, (h, w): of one channel, of equal channels, or the
    indices of a palette. Raises UserError like `read_color`, and for JPEG and the like, which change numbers."""
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
    return _of_header(path, lambda image: image.getexif().get(ORIENTATION, 1)) or 1


def read_palette(path: Path) -> bytes | None:
    """Return the colours of an image's palette; None if it has none."""
    return _of_header(path, lambda image: bytes(image.getpalette() or ()) if image.mode == "P" else None)


def _of_header(path: Path, told: Callable[[Image.Image], Value]) -> Value | None:
    """Return what the header of an image tells, None where Pillow cannot read it: reading the image says what is wrong."""
    try:
        with Image.open(path) as image:
            return told(image)
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError):
        return None


def _lossy(path: Path) -> str | None:
    """Return how the numbers of an image are changed by what it is compressed with; None if they are kept."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        start = file.read(64)
        if start.startswith(JPEG):
            return "a JPEG"
        if start.startswith(b"RIFF") and b"VP8 " in start:
            return "a lossy WebP"
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


def _check_pictures(data: bytes) -> None:
    """Raise an error for a GIF, WebP or TIFF file of several pictures, of other colours than RGB, or that is damaged where
    OpenCV passes it over."""
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
    """Return a TIFF file whose orientation tag says that nothing is to be turned: decoders honour it whatever they are told."""
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
    """Decode by OpenCV: stored pixels, whatever the orientation tag says."""
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if values is None or values.ndim == 2:
        return values
    return values[..., [2, 1, 0, 3][: values.shape[2]]]


def _check_png(data: bytes) -> int:
    """Return the bits of a sample. Raises an error if a checksum differs, or the file holds several pictures."""
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
