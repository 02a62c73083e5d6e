"""Every benchmark of the CPU suite, each in a process of its own; each writes benchmarks/results/NAME.md.

python -m benchmarks [NAME ...]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SUITE: dict[str, tuple[str, ...]] = {  # with fewer rounds than each takes by itself, to stay under six minutes
    "forward": ("--rounds", "2"),
    "packing": ("--rounds", "2"),
    "choice": ("--rounds", "2"),
    "activations": ("--case", "768 wide, 4 + 8 blocks, 24x40, fp32"),
    "helios": ("--rounds", "2"),
    "constants": ("--rounds", "2"),
    "resident": (),
    "loading": (),
    "decode": ("--rounds", "2"),
    "video_memory": ("--given-back",),
    "run_share": ("--runs", "1"),
    "step_cache": ("--rules", "this pack's: extrapolated x0"),
}
OF_MEMORY = ("video_memory", "activations", "loading", "resident")  # not of time: two of them may run side by side
HERE = Path(__file__).parent


def main() -> None:
    """Command line; ends with 1 where a benchmark failed."""
    there = [name for name in SUITE if (HERE / f"{name}.py").is_file()]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(there)}; all if left out")
    names = parser.parse_args().names or there
    if strange := sorted(set(names) - set(there)):
        parser.error(f"{strange[0]} is none of {', '.join(there)}")
    spent: dict[str, float] = {}
    failed: list[str] = []

    def run(name: str) -> None:
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *SUITE[name]], stdout=subprocess.PIPE, text=True
        )
        sys.stdout.write(f"== {name}\n{done.stdout}")
        sys.stdout.flush()
        if done.returncode:
            failed.append(name)
        spent[name] = time.monotonic() - began

    began = time.monotonic()
    for name in names:
        if name not in OF_MEMORY:
            run(name)
    with ThreadPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
        list(pool.map(run, (name for name in OF_MEMORY if name in names)))
    sys.stdout.write("\n".join(f"{name:14} {seconds:6.1f} s" for name, seconds in spent.items()) + "\n")
    sys.stdout.write(f"{'all':14} {time.monotonic() - began:6.1f} s\n")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
