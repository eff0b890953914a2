"""Messages of the commands: plain lines on the terminal, each warning once."""

from __future__ import annotations

import sys

from tqdm import tqdm

_said: set[str] = set()  # lines that were printed and shall not be repeated in this process
_muted = False


def mute() -> None:
    """Silence this process; in a training of several processes only rank 0 prints."""
    global _muted
    _muted = True


def say(text: str = "") -> None:
    """Print a line on standard output without breaking a progress bar."""
    if not _muted:
        tqdm.write(text, file=sys.stdout)


def say_once(text: str) -> None:
    """Print a line like `say`, but the same line only once in a process."""
    if text not in _said:
        _said.add(text)
        say(text)


def forget() -> None:
    """Forget which lines were printed, so that `say_once` and `warn` print them again."""
    _said.clear()


def warn(text: str) -> None:
    """Print a warning on standard error, the same one only once in a process."""
    if not _muted and text not in _said:
        _said.add(text)
        tqdm.write(f"warning: {text}", file=sys.stderr)
