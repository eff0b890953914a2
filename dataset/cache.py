"""A memory-mapped cache of decoded and resized frames on disk, shared by all processes.

An entry is a folder <cache_root>/<scene>-<key>. It has one file for each kind of image, with all frames in their
storage type, and a byte for each frame that is 1 once the frame is written. The key is a hash of the sizes and
modification times of all source files and of how they are read, so that a changed file leads to a new entry. Several
processes may fill an entry at once: they write the same bytes, and the flag of a frame after its data. An open entry
holds a shared flock, which ends with the process; locked entries are not removed.

`python -m dataset.cache` lists the entries, `python -m dataset.cache clear` removes them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import mmap
import os
import shutil
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dataset.frames import Frames
from utils.cli import command_parser, run_command
from utils.files import write_text
from utils.logging import say, warn

DEFAULT_ROOT = "data/cache"
DEFAULTS = {
    "cache": True,  # decoded and resized frames are kept on disk
    "cache_root": DEFAULT_ROOT,  # folder of the cache
    "cache_max_gb": 200.0,  # size of the cache beyond which the least recently used scenes are evicted
}
KINDS = {"color": (np.uint8, (3,)), "depth": (np.uint16, ()), "labels": (np.uint8, ()), "mask": (np.uint8, ())}
KEY_LENGTH = 16
FORMAT = 2  # to be raised when the same files give other bytes
FRAMES_FILE = "frames.npz"
LOCK_FILE = "lock"


@dataclass(frozen=True)
class Cache:
    """The cache below a folder `root`. max_bytes: above this size the least recently used entries are removed."""

    root: Path
    max_bytes: float

    @classmethod
    def of(cls, cfg) -> Cache | None:
        """Return the cache of a config's `cache`, `cache_root` and `cache_max_gb`; None if it is disabled."""
        return cls(Path(cfg.cache_root), cfg.cache_max_gb * 1e9) if cfg.cache else None

    def open(self, scene: str, size: tuple[int, int], kinds: list[str], sources: list[Path], meaning=None) -> Entry:
        """Return the entry of a scene at a size; it may not exist yet. meaning: further values of the key, such as
        units."""
        place = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in sources])
        slug = f"{scene.replace('/', '_')}-{_digest(place)}"
        return Entry(self, self.root / f"{slug}-{_key(size, kinds, sources, meaning)}", size, tuple(kinds))

    def make_room(self, needed: int, keep: Path) -> bool:
        """Remove older versions of the entry `keep`, then the least recently used entries, until `needed` bytes fit.
        Entries that a process has open are kept. Return False if there is not enough space."""
        if needed > self.max_bytes:
            return False
        entries = [entry for entry in list_entries(self.root) if entry.path != keep]
        total = sum(entry.bytes for entry in entries)
        older = [entry for entry in entries if entry.path.name[:-KEY_LENGTH] == keep.name[:-KEY_LENGTH]]
        for entry in older + sorted(entries, key=lambda entry: entry.last_used):
            if (entry in older or total + needed > self.max_bytes) and remove(entry.path):
                total -= entry.bytes
        return total + needed <= self.max_bytes


def remove(path: Path) -> bool:
    """Remove an entry. Return False if it is in use or does not exist."""
    try:
        with open(path / LOCK_FILE, "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
            return True
    except OSError:
        return False


class Entry:
    """The frames of one scene at one size. `frames` is None until the entry was created, by this or another process."""

    def __init__(self, cache: Cache, path: Path, size: tuple[int, int], kinds: tuple[str, ...]):
        self.cache, self.path, self.size, self.kinds = cache, path, size, kinds
        self._maps: dict[str, np.memmap] = {}
        self._lock = _hold(path)
        self.frames = _load_frames(path / FRAMES_FILE) if self._lock else None
        if self.frames is not None:
            with contextlib.suppress(OSError):  # a cache without write permission can still be read
                os.utime(path)  # records the last use

    def create(self, frames: Frames) -> Entry | None:
        """Create the files of the entry. Return None, with a warning, if there is no space for it or it cannot be
        written."""
        needed = len(frames.numbers) * sum(self._frame_bytes(kind) for kind in self.kinds)
        try:
            self.cache.root.mkdir(parents=True, exist_ok=True)
            if not self.cache.make_room(needed, self.path):
                warn(
                    f"{self.path.name} needs {needed / 1e9:.1f} GB, more than cache_max_gb leaves beside the entries in use; "
                    "it is not cached"
                )
                return None
            temporary = Path(tempfile.mkdtemp(dir=self.cache.root, prefix=".new-"))
            (temporary / LOCK_FILE).touch()
            self._lock = _hold(temporary)
            for kind in self.kinds:
                _sparse_file(temporary / kind, len(frames.numbers) * self._frame_bytes(kind))
                _sparse_file(temporary / f"{kind}.there", len(frames.numbers))
            np.savez(
                temporary / FRAMES_FILE,
                numbers=frames.numbers,
                camera_to_world=frames.camera_to_world,
                Ks=frames.Ks,
                skipped=json.dumps(frames.skipped),
            )
            try:
                os.rename(temporary, self.path)
            except OSError:  # another process was first
                shutil.rmtree(temporary, ignore_errors=True)
                self._lock = _hold(self.path)
        except OSError as error:
            warn(f"{self.cache.root}: no cache can be kept there ({error.strerror}); frames are decoded each time")
            return None
        self.frames = frames
        return self

    def read(self, kind: str, row: int) -> np.ndarray | None:
        """Return a copy of a frame's image; None if it is not cached."""
        return np.array(self._map(kind)[row]) if self._map(f"{kind}.there")[row] else None

    def write(self, kind: str, row: int, values: np.ndarray) -> None:
        """Add a frame's image. A full or read-only disk is a warning, not an error: the frame is not cached."""
        # Written to the file, not through the map: on a full disk that raises an error, the map a bus error.
        try:
            _write_at(self.path / kind, row * values.nbytes, values.tobytes())
            _write_at(self.path / f"{kind}.there", row, b"\1")
        except OSError as error:
            warn(f"{self.cache.root}: the cache cannot grow ({error.strerror}); frames are decoded each time")

    def recall(self, name: str) -> dict:
        """Return the values that `remember` stored under a name; {} if there are none."""
        try:
            return json.loads((self.path / f"{name}.json").read_text())
        except (OSError, ValueError):
            return {}

    def remember(self, name: str, values: dict) -> None:
        """Store values that were computed from the frames. Errors are ignored: they are then computed again."""
        with contextlib.suppress(OSError):
            write_text(self.path / f"{name}.json", json.dumps(values))

    def release(self) -> None:
        """Release mapped pages to the system's file cache, so that they do not count as this process's memory."""
        for values in self._maps.values():
            values._mmap.madvise(mmap.MADV_DONTNEED)

    def _map(self, name: str) -> np.memmap:
        if name not in self._maps:
            kind, _, flags = name.partition(".")
            dtype, tail = KINDS[kind]
            shape = (len(self.frames.numbers), *(() if flags else (*self.size, *tail)))
            self._maps[name] = np.memmap(self.path / name, np.uint8 if flags else dtype, "r", shape=shape)
        return self._maps[name]

    def _frame_bytes(self, kind: str) -> int:
        dtype, tail = KINDS[kind]
        return int(np.prod((*self.size, *tail))) * np.dtype(dtype).itemsize

    def __getstate__(self):
        return {**self.__dict__, "_maps": {}, "_lock": None}  # another process maps and locks the files itself

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._lock = _hold(self.path)


def _hold(path: Path) -> BinaryIO | None:
    """Lock an entry against removal. Return the file that holds the lock until it is closed; None if there is no
    entry."""
    try:
        lock = open(path / LOCK_FILE, "rb")  # noqa: SIM115 (closed when nobody refers to it)
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return lock
    except OSError:
        return None


@dataclass(frozen=True)
class Listed:
    """An entry as `python -m dataset.cache` lists it: its folder, bytes on disk, when it was last used."""

    path: Path
    bytes: int
    last_used: float


def list_entries(root: Path) -> list[Listed]:
    """Return the entries of a cache folder, without those that are removed meanwhile."""
    entries = []
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        try:
            if (path / FRAMES_FILE).is_file():
                size = sum(file.stat().st_blocks * 512 for file in path.iterdir())
                entries.append(Listed(path, size, path.stat().st_mtime))
        except OSError:
            continue
    return entries


def _key(size: tuple[int, int], kinds: list[str], sources: list[Path], meaning) -> str:
    state = [repr((FORMAT, size, kinds, meaning))]
    for path in sorted(sources):
        try:
            status = os.stat(path)
        except OSError:
            continue  # reported when the file is read
        state.append(f"{path}\0{status.st_size}\0{status.st_mtime_ns}")
    return _digest("\n".join(state))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=KEY_LENGTH // 2).hexdigest()


def _load_frames(path: Path) -> Frames | None:
    try:
        with np.load(path) as arrays:
            return Frames(
                arrays["numbers"].tolist(), arrays["camera_to_world"], arrays["Ks"], json.loads(str(arrays["skipped"]))
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):  # missing or damaged
        return None


def _write_at(path: Path, offset: int, data: bytes) -> None:
    with open(path, "r+b", buffering=0) as file:
        file.seek(offset)
        if file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _sparse_file(path: Path, size: int) -> None:
    with open(path, "wb") as file:
        file.truncate(size)


def main() -> None:
    parser = command_parser(
        "python -m dataset.cache",
        "List the cache of decoded frames scene by scene, or clear it.",
        "python -m dataset.cache clear",
    )
    parser.add_argument(
        "action",
        nargs="?",
        choices=("list", "clear"),
        default="list",
        help="list the scenes in the cache (default), or remove them",
    )
    parser.add_argument(
        "--root", type=Path, default=Path(DEFAULT_ROOT), help="folder of the cache (default: %(default)s)"
    )
    args = parser.parse_args()
    entries = list_entries(args.root)
    for entry in entries:
        kept = args.action == "clear" and not remove(entry.path)
        say(f"{entry.bytes / 1e9:8.3f} GB  {entry.path.name}" + (" (in use, kept)" if kept else ""))
    total = sum(entry.bytes for entry in entries) / 1e9
    say(f"{total:8.3f} GB  in {len(entries)} scenes of {args.root}" + (", removed" if args.action == "clear" else ""))


if __name__ == "__main__":
    run_command(main)
