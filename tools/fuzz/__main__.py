"""Give random input to everything that takes input. Fails on an error that is not a FramePackError, and on a slow call.

python -m tools.fuzz [AREA ...] [--num N] [--seed S] [--only CASE] [--host URL]
"""

from __future__ import annotations

import argparse
import logging
import sys
import time

from .areas import AREAS
from .cases import run


def main() -> int:
    """Command line; prints every fault with what it was given and how to see it again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("areas", nargs="*", metavar="AREA", help=f"of {', '.join(AREAS)}; all if left out")
    parser.add_argument("--num", type=int, help="cases of each area, in place of its own number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="one case")
    args = parser.parse_args()
    if strange := sorted(set(args.areas) - set(AREAS)):
        parser.error(f"{strange[0]} is none of {', '.join(AREAS)}")
    logging.disable(logging.WARNING)  # what the store says of each broken entry
    failed = False
    for name in args.areas or AREAS:
        area, began = AREAS[name], time.monotonic()
        numbers = range(args.num or area.num) if args.only is None else [args.only]
        faults = run(area, numbers, args.seed)
        failed |= bool(faults)
        sys.stdout.write("".join(f"{name}: {fault}\n" for fault in faults))
        sys.stdout.write(f"{name}: {len(numbers)} cases, {len(faults)} faults, {time.monotonic() - began:.0f} s\n")
        sys.stdout.flush()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
