"""Lists of file names in a capture, and the split into references and tests that they define."""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

from dataset.view_selection import Split
from utils.errors import UserError
from utils.logging import warn

LISTS = ("train_filenames", "val_filenames", "test_filenames")
SPLIT = "split"  # a frame's own: train, val or test
TEST_STEP = 8  # without lists of file names, every eighth frame is a test frame


def normal(name: str) -> str:
    """Normalise a path: forward slashes, without ./ and, as far as possible, ..; the path of a file:// URL."""
    name = name.strip().replace("\\", "/")
    if name.startswith("file:"):
        name = unquote(name.removeprefix("file:").removeprefix("//localhost"))
        name = "/" + name.lstrip("/")
    return posixpath.normpath(name)


def spelling(name: str) -> str:
    """Normalise the spelling of a name: letter case, percent-encoding and Unicode composition."""
    return unicodedata.normalize("NFC", unquote(name)).casefold()


def natural(text: str) -> list:
    """Return a sort key that puts frame_9 before frame_10."""
    pieces, digits = [], ""
    for character in text + "\0":
        if character.isdigit():
            digits += character
        else:
            if digits:
                pieces.append((0, int(digits), ""))
                digits = ""
            pieces.append((1, 0, character))
    return pieces


def split_of_frames(content: dict, path: Path) -> dict[str, list[str]]:
    """Return the lists of file names that follow from the frames' `split` keys; {} without such keys. Raise UserError
    for other values, for frames without the key if others have it, and if there are lists too."""
    given = {frame["file_path"]: frame.get(SPLIT) for frame in content["frames"]}
    if not any(given.values()):
        return {}
    listed = next((key for key in LISTS if content.get(key)), None)
    if listed:
        raise UserError(f"{path}: frames have a {SPLIT}, but there is {listed} as well; remove one")
    made: dict[str, list[str]] = {key: [] for key in LISTS}
    for name, split in given.items():
        key = f"{str(split).strip().lower()}_filenames"
        if key not in made:
            raise UserError(f"{path}: the {SPLIT} of {name} should be train, val or test, but is {split}")
        made[key].append(name)
    return made


def listed_split(content: Mapping, names: list[str], left_out: Mapping[int, str], path: Path) -> Split:
    """Return the split of the frames called `names`, as frame numbers.

    References are train_filenames, tests test_filenames (or val_filenames). Without a list of tests these are the
    frames that are not in train_filenames; if there are none, or no lists, every eighth frame. A frame in both is a
    test frame.
    """
    listed = {key: _numbers(content, key, names, path) for key in LISTS}
    usable = [number for number in range(len(names)) if number not in left_out]
    train, tests = listed["train_filenames"], listed["test_filenames"] or listed["val_filenames"]
    if not tests:
        rest = [number for number in usable if number not in train] if train else []
        tests = rest or [number for number in train or usable if number in usable][TEST_STEP // 2 :: TEST_STEP]
    both = set(tests) & set(train)
    if both and (listed["test_filenames"] or listed["val_filenames"]):
        warn(f"{path}: {len(both)} frames are listed for training and for testing; they are for testing")
    unused = {*tests, *listed["val_filenames"]}
    references = [number for number in train or usable if number not in set(tests if train else unused)]
    return Split([str(number) for number in references], [str(number) for number in tests])


def _numbers(content: Mapping, key: str, names: list[str], path: Path) -> list[int]:
    """Return the numbers of the frames in a list of file names. Raise UserError for a name that is not that of a
    frame."""
    entries = content.get(key) or []
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise UserError(f"{path}: {key} should be a list of file names")
    number_of: dict[str, int] = {}
    for number, name in enumerate(names):
        number_of.setdefault(name, number)
    found = [number_of.get(normal(entry), -1) for entry in entries]
    for place, entry in enumerate(entries):
        if found[place] < 0:
            found[place] = _similar(normal(entry), number_of, f"{path}: {key} has {entry}, which is")
    return list(dict.fromkeys(found))


def _similar(entry: str, number_of: dict[str, int], origin: str) -> int:
    """Return the frame whose path ends with `entry`, or with whose path `entry` ends; if there is none, ignore the
    spelling, then the extension. Raise UserError unless there is exactly one."""

    def same(a: str, b: str) -> bool:
        return a == b or a.endswith(f"/{b}") or b.endswith(f"/{a}")

    def stem(name: str) -> str:
        return posixpath.splitext(name)[0]

    matches = [n for name, n in number_of.items() if same(name, entry)]
    if not matches:
        entry, number_of = spelling(entry), {spelling(name): n for name, n in number_of.items()}
        matches = [n for name, n in number_of.items() if same(name, entry)]
    matches = matches or [
        n for name, n in number_of.items() if same(stem(name), stem(entry)) or same(stem(name), entry)
    ]
    if len(matches) != 1:
        raise UserError(f"{origin} {'none' if not matches else 'more than one'} of the frames' file_path")
    return matches[0]
