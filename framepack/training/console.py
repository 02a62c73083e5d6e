"""A run in a terminal: its lines, and Ctrl-C, which stops it after the step so that its state is saved."""

from __future__ import annotations

import signal
from contextlib import suppress
from types import FrameType
from typing import TextIO

from .reports import Record


class Printed:
    """Prints a run's lines to a stream, or nowhere. Inside a with statement the first Ctrl-C asks the run to stop; a
    second one ends it now."""

    def __init__(self, stream: TextIO | None):
        self.stream, self.asked = stream, False

    def __enter__(self) -> Printed:
        with suppress(ValueError):  # only a program's main thread takes signals
            self.before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ValueError):
            signal.signal(signal.SIGINT, self.before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self.say("Stopping after this step; press Ctrl-C again to stop now without saving.")

    def stopped(self) -> bool:
        """Was the run asked to stop?"""
        return self.asked

    def say(self, line: str) -> None:
        """Print a line."""
        if self.stream:
            self.stream.write(line + "\n")
            self.stream.flush()

    def step(self, record: Record, line: str) -> None:
        """Print a step's line, where it has one."""
        if line:
            self.say(line)
