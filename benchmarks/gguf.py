"""What dequantizing GGUF's blocks costs beside a forward pass, by type.

    python -m benchmarks.gguf [--case NAME] [--device cuda] [--rounds N]

Every matrix of the blocks is dequantized once, as in a step. Seconds are the processor's on a CPU, so that other
programs change the shares little. Writes benchmarks/results/gguf.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from framepack.checkpoints.gguf_blocks import BLOCKS, dequantized
from framepack.models.hunyuan import BACKBONE

from .cases import FULL, SMALL, Ours
from .timing import RESULTS, circumstances, rounds

Reader = Callable[[Tensor, str, torch.dtype], Tensor]
TARGET = 0.08  # of a step
CASE = "768 wide, 2 + 4 blocks, 30x52, fp32"


def blocks(shape: torch.Size, kind: str, device: str) -> Tensor:
    """A matrix in blocks of random bytes."""
    values, size, _ = BLOCKS[kind]
    return torch.randint(256, (shape[0], shape[1] // values * size), dtype=torch.uint8, device=device)


def seconds(run: Callable[[], object], num: int, device: str) -> float:
    """The median time of a call."""

    def synchronized() -> None:
        run()
        if device == "cuda":
            torch.cuda.synchronize()

    clock = time.process_time if device == "cpu" else time.perf_counter
    return statistics.median(rounds({"it": synchronized}, num, clock=clock)["it"])


def share(ours: Ours, step: float, device: str, kind: str, read: Reader = dequantized) -> float:
    """The share of a step of so many seconds that dequantizing every matrix of the blocks takes; `read` is how."""
    shapes = [weight.shape for name, weight in ours.dit.named_parameters() if BACKBONE.in_fp8.fullmatch(name)]
    held = [blocks(shape, kind, device) for shape in shapes if shape[1] % BLOCKS[kind][0] == 0]

    def run() -> None:
        for packed in held:
            read(packed, kind, ours.case.dtype)

    return seconds(run, 3, device) / step


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default=CASE, choices=[*FULL, *SMALL])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    ours = Ours({**FULL, **SMALL}[arguments.case], arguments.device)
    step = seconds(ours.ours, arguments.rounds, arguments.device)
    lines = [
        "# Dequantizing GGUF's blocks\n",
        f"{circumstances()}, {arguments.device}; {arguments.case}, a step {step:.2f} s.",
        f"Target: under {TARGET:.0%} of a step.\n",
        "| type | dequantizing every matrix once, of a step |",
        "|---|---|",
        *(f"| {kind} | {share(ours, step, arguments.device, kind):.1%} |" for kind in BLOCKS),
    ]
    text = "\n".join(lines) + "\n"
    (RESULTS / "gguf.md").write_text(text, "utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
