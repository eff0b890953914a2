"""Reading of text and JSON files, and atomic writing, which never leaves a partial file."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from utils.errors import UserError

REPOSITORY = Path(__file__).resolve().parent.parent


@contextlib.contextmanager
def atomic_write(path: Path):
    """Yield the path of a temporary file beside `path` that replaces it when the block ends without an error."""
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


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text)


def read_text(path: Path, if_missing: str = "there is no such file") -> str:
    """Return the content of a text file, without the byte-order mark that some editors put first. Raise UserError if it
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
    """Return the content of a JSON file. Raise UserError like `read_text`, and if it is no JSON."""

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
