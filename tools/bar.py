"""A run's progress in a terminal or a log."""

from __future__ import annotations

import sys

from .follow import Progress


class Bar:
    """Progress on standard error: one line that is drawn over in a terminal, a line for each tenth elsewhere."""

    def __init__(self) -> None:
        self.shown: tuple[str, int] = ("", 0)

    def __call__(self, progress: Progress) -> None:
        """Show it."""
        name = progress.node.rpartition(".")[2].replace("_", " ")
        share = progress.value / max(progress.total, 1)
        line = f"{name:<12} [{'#' * round(30 * share):.<30}] {progress.value:g}/{progress.total:g}"
        now = (progress.node, int(10 * share))
        if sys.stderr.isatty():
            sys.stderr.write(("\n" if self.shown[0] not in ("", progress.node) else "") + f"\r{line}")
        elif now != self.shown:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()
        self.shown = now
