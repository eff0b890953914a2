"""Signals that end a run: it finishes its step and saves."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from utils.logging import warn


class StopSignals:
    """`cause`: what told the run to stop, None as long as nothing has."""

    def __init__(self):
        self.cause: str | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note SIGINT and SIGTERM, instead of what they do; a second one ends at once. Afterwards they do what they did
        before.

        torchrun passes a signal on that each process has had already: there only the first counts.
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
            pass  # not in the main thread: whoever runs us handles signals
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)
