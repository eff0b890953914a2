"""Resolution of the file names in a capture to files, with tolerance for their spelling."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path, PurePosixPath

from dataset.capture_keys import KINDS
from dataset.name_lists import normal, spelling
from utils.errors import UserError
from utils.logging import warn

SUFFIXES = (".png", ".jpg", ".jpeg", ".JPG", ".PNG", ".JPEG", ".webp")  # of images named without one
LONGEST_NAME = 255  # bytes of a file's name


def find_file_of(path: Path, content: dict, entry: dict, kind: str) -> Path | None:
    """Return the file of a kind that a frame of the capture `path` names, whether it exists or not; None if it names
    none. A mask may be named at the top for all frames. Raise UserError for an invalid name, and for two different
    ones."""
    own = {key: entry[key] for key in KINDS[kind] if entry.get(key)}
    names = own or {key: content[key] for key in KINDS[kind] if kind == "mask" and content.get(key)}
    if not names:
        return None
    where = f"of {entry['file_path']}"
    for key, name in names.items():
        if (
            not isinstance(name, str)
            or "\0" in name
            or max(len(part.encode()) for part in name.split("/")) > LONGEST_NAME
        ):
            raise UserError(f"{path}: {key} {where[:80]} should be a file name")
    if len({normal(name) for name in names.values()}) > 1:
        raise UserError(f"{path}: {' and '.join(names)} {where} name two files; remove one")
    return _find(path, next(iter(names.values())))


def _find(path: Path, name: str) -> Path:
    folder, exact = path.parent, path.parent / name
    if exact.is_file():
        return exact
    file = folder / normal(name)
    if file.is_file():
        return file
    if not file.suffix:
        ends = {full.resolve() for end in SUFFIXES if (full := file.with_name(file.name + end)).is_file()}
        if len(ends) > 1:
            raise UserError(
                f"{path}: {name} may be any of {', '.join(sorted(end.name for end in ends))}; give its suffix"
            )
        return next((full for end in SUFFIXES if (full := file.with_name(file.name + end)).is_file()), file)
    return _similar(folder, normal(name)) or _below(path, normal(name)) or file


def _below(path: Path, name: str) -> Path | None:
    """Return the file that an absolute path of another machine means: its last parts, at least two, below the
    capture."""
    parts = PurePosixPath(name).parts
    if not (name.startswith("/") or name[1:3] == ":/"):
        return None
    for start in range(1, len(parts) - 1):
        tail = "/".join(parts[start:])
        found = path.parent / tail
        found = found if found.is_file() else _similar(path.parent, tail)
        if found:
            where = PurePosixPath(tail).parent
            warn(f"{path}: names files of another machine; they are taken from its own folder ({where})")
            return found
    return None


def _similar(folder: Path, name: str) -> Path | None:
    """Return the file whose path has the same `spelling`; None unless there is exactly one."""
    at = folder
    for part in PurePosixPath(name).parts:
        if part in ("..", "/"):
            at = at / part
            continue
        found = _entries(at, at.stat().st_mtime_ns).get(spelling(part), []) if at.is_dir() else []
        if len(found) != 1:
            return None
        at = at / found[0]
    return at if at.is_file() else None


@lru_cache(maxsize=64)
def _entries(folder: Path, _time: int) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for entry in folder.iterdir():
        found.setdefault(spelling(entry.name), []).append(entry.name)
    return found


def require_files(path: Path, frames: Iterable[tuple[dict, dict[str, Path]]]) -> None:
    """Raise UserError for maps that are named but missing, since the scene would silently lack depth or labels, and for
    a file that is named as two kinds, or as depth or labels of two poses. frames: (entry, kind -> file) of each
    frame."""
    frames = list(frames)
    for kind in ("depth", "labels", "mask"):
        missing = [files[kind] for _, files in frames if kind in files and not files[kind].is_file()]
        if missing:
            raise UserError(f"{path}: {missing[0]} is missing (and {len(missing) - 1} more files of {kind})")
    used: dict[Path, tuple[str, str]] = {}
    for entry, files in frames:
        for kind, file in files.items():
            use = (kind, str(entry.get("transform_matrix")) if kind in ("depth", "labels") else "")
            other = used.setdefault(file, use)
            if other != use:
                what = f"{other[0]} and {kind}" if other[0] != kind else f"the {kind} of two poses"
                raise UserError(f"{path}: {file.name} is named as {what} (at {entry['file_path']})")
