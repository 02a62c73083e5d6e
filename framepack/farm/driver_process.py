"""A farm's driver as a process of its own, for programs that import neither Ray nor the pack under its own name."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, Any

from .facts import PACK, FarmError

LOOK = 0.2  # seconds between two looks at whether the run is cancelled
PATIENCE = 20.0  # seconds that a cancelled driver may take to end its workers


def run_plan(
    arguments: Sequence[str], on_event: Callable[[dict[str, Any]], None], poll: Callable[[], None] = lambda: None
) -> None:
    """``farm plan`` with these arguments; events as they come. Raises FarmError, and what `poll` raises."""
    code = f"import sys; sys.path.insert(0, {str(PACK.parent)!r}); from framepack.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "farm", "plan", *arguments, "--json"]
    with tempfile.TemporaryFile() as errors:
        how: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": errors}
        process = subprocess.Popen(command, **how, text=True)
        try:
            _follow(process, on_event, poll)
        except BaseException:
            _cancel(process)
            raise
        if process.wait():
            errors.seek(0)
            said = errors.read()[-1500:].decode("utf-8", "replace").strip()
            raise FarmError(said or f"The farm's driver ended (status {process.returncode}). Queue again to go on.")


def _follow(process: subprocess.Popen, on_event: Callable[[dict[str, Any]], None], poll: Callable[[], None]) -> None:
    lines: queue.Queue[str | None] = queue.Queue()
    assert process.stdout is not None, "it is a pipe"
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    while True:
        poll()
        try:
            line = lines.get(timeout=LOOK)
        except queue.Empty:
            continue
        if line is None:
            return
        with suppress(json.JSONDecodeError):  # what Ray itself prints
            on_event(json.loads(line))


def _read(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    for line in stream:
        if line.startswith("{"):
            lines.put(line)
    lines.put(None)


def _cancel(process: subprocess.Popen) -> None:
    """Ask the driver to end its workers, and then end it."""
    with suppress(OSError, ValueError):
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
    process.kill()
    process.wait()
