"""ScanNet's .sens files, version 4, read frame by frame.

The layout, little-endian: u32 version · u64 length, name · four 4x4 float32 (colour intrinsic and extrinsic,
depth intrinsic and extrinsic) · i32 colour and depth compression · u32 colour width, height, depth width,
height · f32 depth shift · u64 frames · frames · IMU data, which is not read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from dataset.camera import require_same_size
from dataset.maps import DepthUnit, is_of_a_room, middle_of, to_millimetres
from dataset.scannet import pinhole, rigid
from utils.decoding import decode_image
from utils.errors import UserError

VERSION = 4
LONGEST_NAME, LARGEST_BLOB = 4096, 256 * 2**20  # bytes; larger values in a file mean that it is damaged
RAW, PNG, JPEG = 0, 1, 2  # colour compression
RAW_DEPTH, ZLIB_DEPTH, OCCI_DEPTH = 0, 1, 2  # depth compression
IMU_FRAME, MOST_IMU_FRAMES = 128, 10**8  # bytes; more than any recording has
FRAME = struct.Struct("<16f4Q")  # pose, two time stamps, bytes of colour and of depth


class Truncated(Exception):
    """The file ends inside a frame."""


@dataclass(frozen=True)
class Header:
    """Header of a .sens file. intrinsics, extrinsics: (4, 4) and sizes: (height, width), each of color and depth.
    depth_shift: units per metre."""

    intrinsics: dict[str, np.ndarray]
    extrinsics: dict[str, np.ndarray]
    sizes: dict[str, tuple[int, int]]
    color_compression: int
    depth_compression: int
    depth_shift: float
    frames: int


@dataclass(frozen=True)
class SensFrame:
    """A stored frame. pose: camera-to-world (4, 4). color, depth: compressed data."""

    pose: np.ndarray
    color: bytes
    depth: bytes


class SensFile:
    """An open .sens file. Raise UserError for any other file, and for an unsupported compression."""

    def __init__(self, path: Path):
        self.path = path
        self._file: BinaryIO = open(path, "rb")  # noqa: SIM115 (closed by __exit__)
        try:
            self.header = self._read_header()
        except Truncated:
            raise UserError(f"{path}: is cut off in its header; download it again") from None

    def __enter__(self) -> SensFile:
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def _read(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) != count:
            raise Truncated
        return data

    def _unpack(self, layout: str):
        values = struct.unpack(f"<{layout}", self._read(struct.calcsize(f"<{layout}")))
        return values[0] if len(values) == 1 else values

    def _read_header(self) -> Header:
        version = self._unpack("I")
        if version != VERSION:
            raise UserError(f"{self.path}: not a .sens file of version {VERSION} (it says {version})")
        length = self._unpack("Q")
        if length > LONGEST_NAME:
            raise UserError(f"{self.path}: not a .sens file (a name of {length} bytes)")
        self._read(length)
        matrices = [np.array(self._unpack("16f")).reshape(4, 4) for _ in range(4)]
        color_compression, depth_compression = self._unpack("2i")
        width, height, depth_width, depth_height = self._unpack("4I")
        header = Header(
            intrinsics={"color": matrices[0], "depth": matrices[2]},
            extrinsics={"color": matrices[1], "depth": matrices[3]},
            sizes={"color": (height, width), "depth": (depth_height, depth_width)},
            color_compression=color_compression,
            depth_compression=depth_compression,
            depth_shift=self._unpack("f"),
            frames=self._unpack("Q"),
        )
        self._require_readable(header)
        self._require_cameras(header)
        return header

    def _require_readable(self, header: Header) -> None:
        """Raise UserError for a compression that is not supported, and for implausible sizes and depth shifts."""
        color, depth, shift = header.color_compression, header.depth_compression, header.depth_shift
        (height, width), (depth_height, depth_width) = header.sizes["color"], header.sizes["depth"]
        if color not in (RAW, PNG, JPEG):
            raise UserError(
                f"{self.path}: colour compression {color} is not read (0 raw, 1 png, 2 jpeg are); export it with ScanNet's own tools"
            )
        if depth == OCCI_DEPTH:
            raise UserError(
                f"{self.path}: depth is compressed with occi, which cannot be read here; export it with ScanNet's own tools"
            )
        if depth not in (RAW_DEPTH, ZLIB_DEPTH):
            raise UserError(
                f"{self.path}: depth compression {depth} is not read (0 raw, 1 zlib are); export it with ScanNet's own tools"
            )
        if not np.isfinite(shift) or shift <= 0:
            raise UserError(f"{self.path}: a depth shift of {shift} makes no sense; download it again")
        if not min(width, height, depth_width, depth_height):
            raise UserError(
                f"{self.path}: its header says colour of {width}x{height} and depth of {depth_width}x{depth_height}; download it again"
            )
        if (width < height) != (depth_width < depth_height):
            raise UserError(
                f"{self.path}: its header says {width}x{height} for colour and {depth_width}x{depth_height} for depth; one is turned"
            )

    def _require_cameras(self, header: Header) -> None:
        """Raise UserError for intrinsics and extrinsics that the loader would reject."""
        try:
            for sensor in ("color", "depth"):
                origin = f"{self.path}: the header's intrinsics of {sensor}"
                K = pinhole(header.intrinsics[sensor], origin)
                if sensor == "color":
                    require_same_size(K, header.sizes[sensor], origin)
                rigid(header.extrinsics[sensor], f"{self.path}: the header's extrinsics of {sensor}")
        except UserError as error:
            raise UserError(f"{error}; download it again, or correct it there") from None

    def frames(self) -> Iterator[SensFrame]:
        """Yield the frames in order, one in memory at a time. Raise Truncated if the file ends inside a frame."""
        for _ in range(self.header.frames):
            *values, _, _, color_bytes, depth_bytes = FRAME.unpack(self._read(FRAME.size))
            if max(color_bytes, depth_bytes) > LARGEST_BLOB:
                raise Truncated
            yield SensFrame(np.array(values).reshape(4, 4), self._read(color_bytes), self._read(depth_bytes))

    def odd_end(self) -> str | None:
        """Return a warning about the data after the last frame; None if it is complete IMU data, or nothing."""
        length = self.path.stat().st_size - self._file.tell()
        count = self._unpack("Q") if length >= 8 else 0
        expected = 8 + IMU_FRAME * count
        if length in (0, expected):
            return None
        if length < expected and count < MOST_IMU_FRAMES:
            return f"ends inside its IMU data, which is not read; all {self.header.frames} frames are there"
        return f"holds more than the {self.header.frames} frames that its header says; those are left out"

    def color_file(self, frame: SensFrame) -> tuple[str, bytes]:
        """Return a frame's colour as a file: suffix and content. JPEG and PNG data is not changed. Raise UserError or
        ValueError if the image is damaged, or its size differs from that in the header."""
        height, width = self.header.sizes["color"]
        if self.header.color_compression in (JPEG, PNG):
            found = decode_image(frame.color).shape[:2]
            if found != (height, width):
                raise ValueError(f"its colour is {found[1]}x{found[0]}, but the header says {width}x{height}")
            return (".jpg" if self.header.color_compression == JPEG else ".png"), frame.color
        if len(frame.color) != height * width * 3:
            raise ValueError(f"its colour is not {width}x{height} pixels of 3 bytes, as the header says")
        image = np.frombuffer(frame.color, np.uint8).reshape(height, width, 3)
        return ".jpg", cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()

    def depth_millimetres(self, frame: SensFrame) -> np.ndarray:
        """Return depth (h, w) uint16 in millimetres. Raise ValueError or zlib.error if the data is damaged, its size
        differs from that in the header, or depth is implausible with the header's depth shift."""
        data, whole = frame.depth, True
        (height, width), shift = self.header.sizes["depth"], self.header.depth_shift
        if self.header.depth_compression == ZLIB_DEPTH:
            unpacker = zlib.decompressobj()
            data = unpacker.decompress(data, height * width * 2 + 1)  # little more than a frame, whatever it claims
            whole = unpacker.eof
        if len(data) != height * width * 2 or not whole:
            raise ValueError(f"its depth is not {width}x{height} pixels of 16 bits, as the header says")
        depth = np.frombuffer(data, "<u2").reshape(height, width)
        middle = middle_of(depth)
        if middle is not None and not is_of_a_room(middle / shift):
            raise ValueError(
                f"by the header's depth shift of {shift:g} its depth is {middle / shift:.3g} m in the middle, which no room is"
            )
        return depth if shift == 1000 else to_millimetres(depth, DepthUnit(1 / shift, stated=True))
