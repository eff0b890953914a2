"""Messages of the commands: plain lines on the terminal, each warning once."""

from __future__ import annotations

import sys

from tqdm import tqdm

_said: set[str] = set()  # what is said only once in a process
_muted = False


def mute() -> None:
    """Silence this process: another one speaks for it."""
    global _muted
    _muted = True


def say(text: str = "") -> None:
    """Print a line on standard output that does not tear a progress bar."""
    if not _muted:
        tqdm.write(text, file=sys.stdout)


def say_once(text: str) -> None:
    """Print a line like `say`, the same one only once in a process."""
    if text not in _said:
        _said.add(text)
        say(text)


def forget() -> None:
    """Say again what was said once."""
    _said.clear()


def warn(text: str) -> None:
    """Print a line on standard error, the same one only once in a process."""
    if not _muted and text not in _said:
        _said.add(text)
        tqdm.write(f"warning: {text}", file=sys.stderr)
