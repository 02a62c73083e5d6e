"""How much memory a process holds at the most."""

from __future__ import annotations

import threading
import time

import psutil


class Peak:
    """The most memory that a process holds resident while the block runs."""

    def __init__(self, pid: int):
        self.process, self.most, self.done = psutil.Process(pid), 0, threading.Event()

    def __enter__(self) -> Peak:
        def watch() -> None:
            while not self.done.is_set():
                self.most = max(self.most, self.process.memory_info().rss)
                time.sleep(0.01)

        self.thread = threading.Thread(target=watch)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()
