"""Detection of damage in baseline JPEGs that decoders do not report, by parsing the Huffman codes of all blocks.

Decoders resynchronise soon after damaged bytes and report nothing if the number of blocks is right. Signs of damage are
blocks of more than 64 coefficients, brightness beyond 8 bits, and bits left over at the end. Parsing takes about a
microsecond a byte, so it is used by checks and preparation, not whenever an image is read. The format is specified in
ITU-T T.81.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

BASELINE = (0xC0, 0xC1)
PROGRESSIVE_AND_OTHERS = (0xC2, 0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
HUFFMAN, QUANTIZATION, RESTART, SCAN = 0xC4, 0xDB, 0xDD, 0xDA
RESTARTS = re.compile(rb"\xff[\xd0-\xd7]")
NO_CODES = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # a marker that ends them; files may hold more pictures behind it
NO_CODE = 0  # as a step: no symbol begins with these bits
END_OF_BLOCK = 64  # coefficients that it stands for
BRIGHTEST = 1024  # of a block's mean, times 8, about the middle
CATEGORY = 12  # bits that a difference of two means may have, at most


@dataclass
class _Layout:
    """Header of a JPEG.

    size: (h, w). components: (id, blocks across and down in an MCU, number of the quantization table). steps: number of
    a quantization table -> its DC step. tables: class and number of a Huffman table -> for all 16-bit words the length
    of the code that they begin with (65536,), and its symbol (65536,). scan: component id -> numbers of its DC and AC
    tables. interval: MCUs between restart markers, 0 without. first: offset of the first code.
    """

    size: tuple[int, int] = (0, 0)
    components: list[tuple[int, int, int, int]] = field(default_factory=list)
    steps: dict[int, int] = field(default_factory=dict)
    tables: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    scan: dict[int, tuple[int, int]] = field(default_factory=dict)
    interval: int = 0
    first: int = 0


def find_damage(data: bytes) -> str | None:
    """Return a description of the damage in a JPEG file; None if there is none, or it is not a baseline JPEG of one
    scan."""
    try:
        layout = _read_layout(data)
    except (IndexError, ValueError):
        return "its header is damaged"
    if layout is None:
        return None
    marker = NO_CODES.search(data, layout.first)
    end = marker.start() if marker else len(data)
    pieces = RESTARTS.split(data[layout.first : end]) if layout.interval else [data[layout.first : end]]
    left = _units(layout)
    for piece in pieces:
        units = min(left, layout.interval or left)
        left -= units
        found = _follow(piece.replace(b"\xff\x00", b"\xff"), layout, units)
        if found:
            return found
    return "parts of it are missing" if left else None


def _read_layout(data: bytes) -> _Layout | None:
    layout, at = _Layout(), 2
    while True:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        content = data[at + 4 : at + 2 + length]
        if marker in PROGRESSIVE_AND_OTHERS:
            return None
        if marker in BASELINE:
            layout.size = int.from_bytes(content[1:3], "big"), int.from_bytes(content[3:5], "big")
            layout.components = [(c[0], c[1] >> 4, c[1] & 15, c[2]) for c in _split(content[6:], 3)]
        elif marker == HUFFMAN:
            layout.tables |= dict(_huffman_tables(content))
        elif marker == QUANTIZATION:
            while content:
                wide = content[0] >> 4
                layout.steps[content[0] & 15] = int.from_bytes(content[1 : 2 + wide], "big")
                content = content[1 + 64 * (1 + wide) :]
        elif marker == RESTART:
            layout.interval = int.from_bytes(content, "big")
        elif marker == SCAN:
            layout.scan = {c[0]: (c[1] >> 4, c[1] & 15) for c in _split(content[1:-3], 2)}
            layout.first = at + 2 + length
            return layout if len(layout.scan) == len(layout.components) else None
        at += 2 + length


def _split(content: bytes, length: int) -> list[bytes]:
    return [content[i : i + length] for i in range(0, len(content), length)]


def _huffman_tables(content: bytes) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray]]]:
    while content:
        counts, symbols = content[1:17], content[17 : 17 + sum(content[1:17])]
        lengths, values = np.zeros(65536, np.int32), np.zeros(65536, np.int32)
        code, used = 0, 0
        for bits, count in enumerate(counts, 1):
            for _ in range(count):
                here = slice(code << (16 - bits), (code + 1) << (16 - bits))
                lengths[here], values[here] = bits, symbols[used]
                code, used = code + 1, used + 1
            code <<= 1
        yield content[0], (lengths, values)
        content = content[17 + len(symbols) :]


def _units(layout: _Layout) -> int:
    """Return the number of MCUs (minimum coded units) of the image."""
    across, down = _sampling(layout)
    height, width = layout.size
    return -(-width // (8 * across)) * -(-height // (8 * down))


def _sampling(layout: _Layout) -> tuple[int, int]:
    if len(layout.components) == 1:
        return 1, 1
    return max(c[1] for c in layout.components), max(c[2] for c in layout.components)


def _follow(codes: bytes, layout: _Layout, units: int) -> str | None:
    """Return a description of the damage in the codes of so many MCUs; None if there is none."""
    stream = np.frombuffer(codes + b"\xff" * 8, np.uint8)
    padded = stream.astype(np.uint32)
    words = padded[:-3] << 24 | padded[1:-2] << 16 | padded[2:-1] << 8 | padded[3:]
    place = np.arange(8 * len(codes))
    ahead = words[place >> 3] >> (16 - (place & 7)).astype(np.uint32) & 0xFFFF
    steps = {number: _steps(ahead, number >> 4 == 1, *table) for number, table in layout.tables.items()}
    blocks = []
    for component, across, down, _ in layout.components:
        dc, ac = layout.scan[component]
        begins: list[int] = []
        blocks += [(steps[dc], steps[16 | ac], begins)] * (across * down if len(layout.components) > 1 else 1)
    try:
        end = _walk(blocks, units)
    except IndexError:
        return "it ends too soon"
    if end is None:
        return "it has codes that cannot be"
    rest = np.unpackbits(stream)[end : len(place)]  # should fill a byte, with ones; some programs write more, all alike
    if rest.any() and not rest.all():
        return "it has codes behind its last pixel"
    firsts = {id(begins): begins for _, _, begins in blocks}.values()
    for (component, _, _, number), begins in zip(layout.components, firsts, strict=True):
        means = np.cumsum(_differences(ahead, np.array(begins), stream, layout.tables[layout.scan[component][0]]))
        if np.abs(means * layout.steps[number]).max() > BRIGHTEST + 2 * layout.steps[number]:
            return "blocks are brighter than pixels can be"
    return None


def _steps(ahead: np.ndarray, is_ac: bool, lengths: np.ndarray, symbols: np.ndarray) -> list[int]:
    """Return for the symbol that begins at each bit its length in bits plus 64 times the coefficients that it
    covers."""
    length, symbol = lengths[ahead], symbols[ahead]
    run = np.where(symbol == 0, END_OF_BLOCK, (symbol >> 4) + 1) if is_ac else np.ones_like(symbol)
    return np.where(length > 0, length + (symbol & 15 if is_ac else symbol) + 64 * run, NO_CODE).tolist()


def _walk(blocks: list[tuple[list[int], list[int], list[int]]], units: int) -> int | None:
    """Return the bit after the last block, None if a code is invalid. Append the first bit of each block to its
    list."""
    at = 0
    for _ in range(units):
        for dc, ac, begins in blocks:
            begins.append(at)
            if not dc[at]:
                return None
            at += dc[at] & 63
            coefficient = 1
            while coefficient < 64:
                step = ac[at]
                if not step:
                    return None
                coefficient += step >> 6
                at += step & 63
            if coefficient > 64 and step >> 6 != END_OF_BLOCK:
                return None
    return at


def _differences(
    ahead: np.ndarray, begins: np.ndarray, stream: np.ndarray, table: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Return the DC difference of each block to the block before, (N,)."""
    lengths, categories = (values[ahead[begins]] for values in table)
    at = begins + lengths
    bits = np.unpackbits(stream)
    values = np.zeros(len(begins), np.int64)
    for category in range(1, CATEGORY):
        here = at[categories == category]
        read = sum(bits[here + i].astype(np.int64) << (category - 1 - i) for i in range(category))
        values[categories == category] = np.where(read >> (category - 1), read, read - (1 << category) + 1)
    return values
