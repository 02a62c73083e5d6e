"""A stand-in for a Windows disk: a file that this process holds open or mapped is neither replaced nor deleted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def held_files() -> set[str]:
    """The files that this process holds open or mapped."""
    process = Path("/proc/self")
    found = {line.split(maxsplit=5)[-1].rstrip("\n") for line in (process / "maps").open() if "/" in line}
    for handle in (process / "fd").iterdir():
        try:
            found.add(os.readlink(handle))
        except OSError:  # the folder's own handle, closed by now
            continue
    return found


@contextmanager
def windows_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refuse, as Windows does, to replace or delete what is held, and to rename onto a file. Skips without /proc."""
    if not Path("/proc/self/maps").exists():
        pytest.skip("this system does not list what a process holds")

    def refusing(plain: Callable[..., Any], onto: bool) -> Callable[..., Any]:
        def call(*paths: Any, **options: Any) -> Any:
            if held := {os.path.realpath(p) for p in paths if isinstance(p, str | os.PathLike)} & held_files():
                raise PermissionError(13, "The process cannot access the file because it is in use", held.pop())
            if onto and os.path.exists(paths[1]):
                raise FileExistsError(17, "Cannot create a file when that file already exists", str(paths[1]))
            return plain(*paths, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("replace", "rename", "unlink", "remove"):
            patch.setattr(os, name, refusing(getattr(os, name), name == "rename"))
        yield
