"""Small file systems of their own, for what happens when a disk is full or read-only. Root alone may mount them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Callable[[str], None]]:
    """A file system in memory at a folder; gives what mounts it again with other options. Skips where none may be."""
    folder.mkdir()

    def mount(options: str) -> subprocess.CompletedProcess[bytes]:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            return subprocess.run(command, capture_output=True)
        except FileNotFoundError:
            pytest.skip("this system has no mount")

    if mount(options).returncode:
        pytest.skip("file systems may not be mounted here")
    try:
        yield lambda options: mount(f"remount,{options}").check_returncode()
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)
