"""The argument parser of all commands, and their error handling: one line, no traceback."""

from __future__ import annotations

import argparse
import errno
import sys
import traceback
from collections.abc import Callable

from utils.errors import UserError


def command_parser(prog: str, description: str, *examples: str) -> argparse.ArgumentParser:
    """Return a parser with --debug whose help shows the description as it is written, and last the examples, if any.

    prog: the command as it is typed.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog="\n  ".join(["example:" if len(examples) == 1 else "examples:", *examples]) if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def add_overrides(parser: argparse.ArgumentParser, example: str = "lr_cfg.lr_init=1e-3") -> None:
    """Let a command take `key=value` as `overrides`, changes of its config; parse it by `parse_intermixed_args`.

    example: what the help gives for a key within a section.
    """
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help=f"change a key of the config; a key within a section is dotted: {example}",
    )


def run_command(main: Callable[[], None]) -> None:
    """Run `main`. An error that a user can fix ends in one line and exit code 1; `--debug` adds the traceback."""
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nstopped")
    except UserError as error:
        _fail(str(error))
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has ended
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _fail(
                f"the disk is full ({error.filename or 'while writing'}); free some space and start the command again"
            )
        _fail(f"{error.filename or 'a file'}: {error.strerror or error}")


def _fail(message: str) -> None:
    if "--debug" in sys.argv:
        traceback.print_exc()
    sys.exit(f"error: {message}")
