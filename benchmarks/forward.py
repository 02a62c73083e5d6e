"""One forward of the DiT against diffusers' transformer and against the floor of bare products.

python -m benchmarks.forward [--full] [--rounds N] [--case NAME]

Seconds are the processor's, so that other programs change the ratios little. float32 runs first; bfloat16 is skipped
where the processor has no fast products of it. The cases are small; `--full` takes the sizes of the project's targets,
some minutes, and writes forward_full.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from functools import cache

import torch
from torch import Tensor

from .cases import FULL, SMALL, Case, Pair
from .floor import Floor
from .timing import RESULTS, circumstances, ratio, rounds, shown


def row(name: str, case: Case, num: int) -> str:
    """A row of the table; one that says so where the processor has no fast products of the case's dtype."""
    if case.dtype == torch.float32 or speed(case.dtype) > 0.5 * speed(torch.float32):
        return measure(name, case, num)
    skipped = f"skipped: this processor has no fast {str(case.dtype).removeprefix('torch.')} products"
    return f"| {name} | {skipped} | | | | |"


@cache
def speed(dtype: torch.dtype) -> float:
    """Products per second of a small linear layer."""
    x, weight = torch.randn(512, 768, dtype=dtype), torch.randn(768, 768, dtype=dtype)
    times = rounds({"product": lambda: torch.nn.functional.linear(x, weight)}, 5, warmup=1, clock=time.process_time)
    return 1 / min(times["product"])


def measure(name: str, case: Case, num: int) -> str:
    """A row of the table."""
    pair = Pair(case)
    ours, theirs = pair.ours(), pair.theirs()
    error = relative(ours, theirs)
    floor = Floor.record(pair.run_ours)
    times = rounds(
        {"ours": pair.ours, "diffusers": pair.theirs, "floor": floor.replay}, num, warmup=0, clock=time.process_time
    )
    cells = [shown(ratio(times, a, b)) for a, b in (("ours", "floor"), ("ours", "diffusers"), ("diffusers", "floor"))]
    return f"| {name} | {' | '.join(cells)} | {error:.0e} | {statistics.median(times['ours']):.1f} |"


def relative(one: Tensor, other: Tensor) -> float:
    """The norm of the difference over that of the second."""
    return float((one.double() - other.double()).norm() / other.double().norm())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--full", action="store_true", help="the sizes of the targets")
    parser.add_argument("--case", choices=[*SMALL, *FULL])
    args = parser.parse_args()
    cases = FULL if args.full else SMALL
    chosen = {name: case for name, case in (SMALL | FULL).items() if name == args.case} or cases
    rows = [row(name, case, args.rounds) for name, case in chosen.items()]
    head = [
        *("# One forward of the DiT", "", circumstances(), ""),
        f"Processor seconds, medians of {args.rounds} paired ratios, with quartiles.",
        "The floor is every matrix product, convolution and attention of the forward alone, into buffers,",
        "by PyTorch's own calls.",
        "",
    ]
    columns = "| case | ours / floor | ours / diffusers | diffusers / floor | error against diffusers | s |"
    text = "\n".join([*head, columns, "|---|---|---|---|---|---|", *rows]) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / ("forward_full.md" if args.full else "forward.md")).write_text(text, "utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
