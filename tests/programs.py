"""Runs of the repository's programs in this process, which saves the seconds that a new one takes to import torch."""

import contextlib
import io
import os
import runpy
import sys
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest

from utils import logging

REPOSITORY = Path(__file__).parent.parent


@dataclass
class Done:
    """The end of a program, with the names of `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def run_program(*words, folder: Path = REPOSITORY) -> Done:
    """Run a script of the repository, or with -m a module, in `folder`, as `python` would with these words behind it.

    An exception that the program does not catch is written to stderr like there, and makes the returncode 1.
    """
    words = [str(word) for word in words]
    module = words[0] == "-m"
    out, err, code = io.StringIO(), io.StringIO(), 0
    logging.forget()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", ".*found in sys.modules", RuntimeWarning
        )  # which a new process would not have
        patch.chdir(folder)
        patch.setattr(sys, "argv", words[1:] if module else words)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                if module:
                    runpy.run_module(words[1], run_name="__main__", alter_sys=True)
                else:
                    runpy.run_path(os.fspath(REPOSITORY / words[0]), run_name="__main__")
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
                if isinstance(end.code, str):
                    print(end.code, file=sys.stderr)
            except Exception:
                code = 1
                traceback.print_exc()
    return Done(code, out.getvalue(), err.getvalue())
