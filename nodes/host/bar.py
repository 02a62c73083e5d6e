"""A node's progress bar."""

from __future__ import annotations

import time

import comfy.utils

EVERY = 0.1  # seconds


class Bar:
    """The host's bar, told a few times a second: each message to the page wakes the server's thread."""

    def __init__(self, total: int):
        self.bar = comfy.utils.ProgressBar(total)
        self.done, self.said = 0, 0.0

    def update(self, num: int = 1) -> None:
        """So many more are done. Raises what the host raises where the run was cancelled."""
        self.done += num
        now = time.monotonic()
        if now - self.said >= EVERY or self.done >= self.bar.total:
            self.said = now
            self.bar.update_absolute(self.done)
