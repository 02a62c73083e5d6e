"""Run the linter and every test that is not slow, on two workers of one thread each.

    python -m tools.test [--lint | pytest's arguments]     # such as: -m slow, or: tests/framepack -k schedule

A worker keeps the files that it begins, and with them their ComfyUI. The 25 slowest tests are named at the end.
"""

from __future__ import annotations

import os
import subprocess
import sys

from .environment import REPO, enter

LINT = (["ruff", "check", "."], ["ruff", "format", "--check", "."])
PYTEST = ["pytest", "-n", "2", "--dist", "loadgroup", "--durations=25", "-m", "not slow and not gpu"]
# UTF-8 is a Windows Python's default only from 3.15 on.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}


def main(arguments: list[str]) -> int:
    """Command line; the status of the first command that fails."""
    commands = LINT if arguments == ["--lint"] else (*LINT, [*PYTEST, *arguments])
    for command in commands:
        done = subprocess.run([sys.executable, "-m", *command], cwd=REPO, env=os.environ | ENVIRONMENT)
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    enter("test")
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
