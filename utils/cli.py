"""The end of a command: quiet, or with one line that says what is wrong."""

from __future__ import annotations

import errno
import sys
import traceback

from utils.errors import UserError


def run_command(main) -> None:
    """Runs `main`. What a user can mend ends in one line and exit code 1; `--debug` shows the traceback as well."""
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nstopped")
    except UserError as error:
        _fail(str(error))
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone
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
