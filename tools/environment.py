"""The Python of the tools: this one where it has what a tool needs, else one in `.venv`, which is made once.

    python -m tools.environment host     # what ComfyUI needs
    python -m tools.environment test     # what the tests need, too

It needs the standard library alone, so that any Python from 3.11 on can start a tool.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
VENV = REPO / ".venv"
OLDEST = (3, 11)
# Installed first and by version, so that every other package takes the build of torch that is there.
TORCH = ("torch==2.13.0",)
WITHOUT_DEPENDENCIES = ("torchvision==0.28.0",)
LISTS = {"host": ("requirements-host.txt",), "test": ("requirements-host.txt", "requirements-test.txt")}
CLIENT = ("aiohttp", "Pillow")
STARTER = (*CLIENT, "psutil", "filelock")  # what starts a ComfyUI that brings its own packages
NAME = re.compile(r"([A-Za-z0-9._-]+)\s*(?:==\s*([^\s;,]+))?")


def wanted(need: str) -> list[str]:
    """The requirements of `host` or `test`, torch among them."""
    lines = [line for name in LISTS[need] for line in (REPO / "tools" / name).read_text("utf-8").splitlines()]
    return [*TORCH, *WITHOUT_DEPENDENCIES, *(line for line in lines if line and not line.startswith("#"))]


def missing(requirements: Iterable[str]) -> list[str]:
    """Those that this Python lacks: packages that are absent, or installed in another version than the pinned one."""
    return [text for text in requirements if not _is_there(text)]


def _is_there(requirement: str) -> bool:
    match = NAME.match(requirement)
    assert match is not None, requirement
    try:
        found = version(match[1])
    except PackageNotFoundError:
        return False
    return match[2] in (None, found.partition("+")[0])


def require(requirements: Iterable[str]) -> None:
    """End with what to install where this Python lacks a package."""
    if lacks := missing(requirements):
        sys.exit(f"This Python lacks {', '.join(lacks)}. Install: {sys.executable} -m pip install {' '.join(lacks)}")


def enter(need: str) -> None:
    """Return where this Python has all that is needed; else run the same command in `.venv` and end as it ends."""
    if not _inside() and not missing(wanted(need)):
        return
    python = make(need)
    if not _inside():
        sys.exit(_run([str(python), *sys.orig_argv[1:]]))


def make(need: str) -> Path:
    """Make `.venv`, or bring it up to date; its Python. Ends with a message where that fails."""
    if sys.version_info < OLDEST:
        sys.exit(f"Python 3.11 or newer is needed; this is {sys.version.partition(' ')[0]}.")
    python = python_of(VENV)
    mark, text = VENV / f".{need}", "\n".join(wanted(need))
    if python.is_file() and mark.is_file() and mark.read_text("utf-8") == text:
        return python
    print(f"Installing what the {need} needs into {VENV} (some minutes, once) ...", file=sys.stderr)  # noqa: T201
    if not python.is_file():
        _make_venv()
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    steps = ([*pip, *TORCH], [*pip, "--no-deps", *WITHOUT_DEPENDENCIES], [*pip, *_lists(need)])
    for command in steps:
        if subprocess.run(command).returncode:
            sys.exit(f"pip failed: {' '.join(command)}")
    for name, lists in LISTS.items():
        if set(lists) <= set(LISTS[need]):
            (VENV / f".{name}").write_text("\n".join(wanted(name)), "utf-8")
    return python


def python_of(environment: Path) -> Path:
    """The Python of a virtual environment."""
    return environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _lists(need: str) -> list[str]:
    return [word for name in LISTS[need] for word in ("-r", str(REPO / "tools" / name))]


def _make_venv() -> None:
    try:
        import venv

        venv.create(VENV, with_pip=True)
    except (ImportError, subprocess.CalledProcessError) as fault:  # the portable build's Python lacks venv
        sys.exit(
            f"{sys.executable} cannot make a virtual environment ({fault}). Use a full Python 3.11 or newer (Debian: "
            "apt install python3-venv). The demo needs none where COMFYUI_PATH names the folder of ComfyUI's main.py."
        )


def _inside() -> bool:
    return Path(sys.prefix).resolve() == VENV.resolve()


def _run(command: list[str]) -> int:
    """A command's exit status; it gets Ctrl-C itself, and SIGTERM through this process."""
    child = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    while True:
        with suppress(KeyboardInterrupt):
            return child.wait()


def main() -> None:
    """Command line; prints the environment's Python."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("need", choices=LISTS)
    print(make(parser.parse_args().need))  # noqa: T201


if __name__ == "__main__":
    main()
