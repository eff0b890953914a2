"""Signals that stop a run after its current step, so that it can save."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from utils.logging import warn


class StopSignals:
    """`cause`: name of the signal that was received; None before."""

    def __init__(self):
        self.cause: str | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Record SIGINT and SIGTERM in `cause` within the context; a second one ends the process. Restore the handlers
        at the end.

        torchrun forwards signals that each process has received already: under it repeated signals are ignored.
        """
        repeats_end = "TORCHELASTIC_RUN_ID" not in os.environ

        def note(number, _frame):
            if self.cause is not None:
                if repeats_end:
                    raise KeyboardInterrupt
                return
            self.cause = signal.Signals(number).name
            warn(f"{self.cause}: finishing this step, then saving")

        before = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, note)
        except ValueError:
            pass  # not in the main thread: the caller handles signals
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)
