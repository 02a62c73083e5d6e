"""Check the pack on a GPU machine without network, part by part; each takes at most four minutes and stands alone.

    python -m benchmarks.gpu_check prepare [--host COMFYUI]   # here: what that machine lacks, into .payload/
    python -m benchmarks.gpu_check run [PART ...]             # there: results go to benchmarks/results/gpu.md
    python -m benchmarks.gpu_check run --small                # a toy on the CPU, which says nothing of speed

Parts run in the order of what they tell. .payload/ is ignored by git and travels beside the working tree.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from . import payload
from .report import write_section

LIMIT = 240  # seconds for a part
SLOW = 5  # times as long for a toy, where other programs may share the processor
NAMES = ("parity", "attention", "forward", "gguf", "workflow", "released_24", "released_12", "released_6", "decode")
RESULTS = Path(__file__).parent.parent / "results"


def parts() -> Mapping[str, Callable[[bool], Iterable[str]]]:
    """Each part's function, which gives lines of Markdown and raises where a check fails."""
    from . import hosted, library

    found = {name: getattr(library, name) for name in NAMES[:4]} | {
        n: getattr(hosted, n) for n in ("workflow", "decode")
    }
    return found | {f"released_{limit}": partial(hosted.released, limit) for limit in (24, 12, 6)}


def run_one(name: str, small: bool) -> int:
    """Run a part in this process; its lines go to standard output, each when it is there."""
    import torch

    from ..timing import circumstances

    torch.set_grad_enabled(False)
    toy = ["A toy on a CPU, which says nothing of speed.", ""] if small else []
    for line in itertools.chain((circumstances(), "", *toy), parts()[name](small)):
        print(line, flush=True)  # noqa: T201
    return 0


def run_all(names: list[str], small: bool, results: Path) -> int:
    """Run parts, each in a process of its own, and write each one's section at once; the number that failed."""
    environment, failed = os.environ | payload.unpacked(), 0
    limit = LIMIT * (SLOW if small else 1)
    for name in names:
        command = [sys.executable, "-m", "benchmarks.gpu_check", "one", name, *(["--small"] if small else [])]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit)
            output, errors, status = done.stdout, done.stderr, done.returncode
        except subprocess.TimeoutExpired as fault:
            output, errors, status = _text(fault.stdout), f"It took more than {limit} s.", 1
        failed += status != 0
        lines = output.splitlines() + (["", "Failed:", "", "```", *errors.splitlines()[-15:], "```"] if status else [])
        write_section(results, name, lines)
        sys.stdout.write(f"== {name}\n" + "\n".join(lines) + "\n")
        sys.stdout.flush()
    return failed


def _text(output: bytes | str | None) -> str:
    """What a process wrote before its time was up."""
    return output.decode("utf-8", "replace") if isinstance(output, bytes) else output or ""


def main() -> int:
    """Command line; ends with 1 where a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare", help="fetch what the machine lacks into .payload/")
    prepare.add_argument("--host", type=Path, help="a ComfyUI checkout; else the one that the tests use")
    for command in ("run", "one"):
        sub = commands.add_parser(command, help="run parts" if command == "run" else argparse.SUPPRESS)
        sub.add_argument("names", nargs="*" if command == "run" else 1, choices=[*NAMES, []], metavar="PART")
        sub.add_argument("--small", action="store_true", help="a toy on the CPU")
        sub.add_argument("--results", type=Path, default=RESULTS / "gpu.md")
    args = parser.parse_args()
    if args.command == "prepare":
        sys.stdout.write(payload.prepare(args.host))
        return 0
    if args.command == "one":
        return run_one(args.names[0], args.small)
    return int(run_all(args.names or list(NAMES), args.small, args.results) > 0)


if __name__ == "__main__":
    sys.exit(main())
