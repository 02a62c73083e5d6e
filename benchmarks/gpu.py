"""A step at the released model's width and frame size on CUDA: eager, compiled, fp8, streamed weights.

python -m benchmarks.gpu [--double 4 --single 8] [--rounds N]

Weights are random. Fewer blocks than the released model's 20 and 40 give the same ratios, since blocks of a kind cost
the same; all of them need about 110 GiB, most of it for the recorded inputs of the floor.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framepack.models.packed import PackedDiT

from .cases import Case, Ours
from .floor import Floor
from .gpu_check.report import write_section
from .timing import RESULTS, circumstances, ratio, rounds, shown

FP8 = torch.float8_e4m3fn
SMALL = {"heads": 2, "double": 2, "single": 2, "height": 4, "width": 6}  # to see that everything runs, on a CPU


class Fp8Linear(nn.Linear):
    """A linear layer of fp8 weights with a scale for each row; what comes in is scaled for each token."""

    @torch.no_grad()
    def quantize(self) -> None:
        """Replace the weights by their fp8 form."""
        self.weight_scale = self.weight.float().abs().amax(1, keepdim=True).clamp_min(1e-12) / torch.finfo(FP8).max
        self.weight = nn.Parameter((self.weight.float() / self.weight_scale).to(FP8), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """x ``... inner`` -> ``... outer``, in x's dtype."""
        flat = x.reshape(-1, x.shape[-1])
        scale = flat.float().abs().amax(1, keepdim=True).clamp_min(1e-12) / torch.finfo(FP8).max
        small = (flat.float() / scale).to(FP8)
        if x.is_cuda:
            by_rows = F.ScalingType.RowWise
            scales = {"scale_a": scale, "scale_recipe_a": by_rows}
            scales |= {"scale_b": self.weight_scale.t(), "scale_recipe_b": by_rows}
            out = F.scaled_mm(small, self.weight.t(), **scales, bias=self.bias, output_dtype=x.dtype)
        else:
            weight = self.weight.float() * self.weight_scale
            out = F.linear(small.float() * scale, weight, self.bias.float()).to(x.dtype)
        return out.unflatten(0, x.shape[:-1])


def quantized(model: Ours) -> None:
    """Replace the weights of the blocks' products by their fp8 form; all else stays."""
    for name in model.dit.BLOCKS:
        for block in getattr(model.dit, name):
            for layer_name, layer in block.named_modules():
                if isinstance(layer, nn.Linear) and not layer_name.startswith("norm"):
                    layer.__class__ = Fp8Linear
                    layer.quantize()


class Streamed:
    """Weights of blocks in pinned memory; each comes to the device while the block before it runs.

    Modulations stay: they run before the blocks, once for all steps.
    """

    def __init__(self, dit: PackedDiT, device: str):
        stays = {p for layer in dit.modulations for p in layer.parameters()}
        self.blocks = [block for name in dit.BLOCKS for block in getattr(dit, name)]
        self.device, self.stream = device, torch.cuda.Stream()
        self.weights = [[p for p in block.parameters() if p not in stays] for block in self.blocks]
        self.home = [[p.data.cpu().pin_memory() for p in weights] for weights in self.weights]
        self.ready = [torch.cuda.Event() for _ in self.blocks]
        for i, block in enumerate(self.blocks):
            self._leave(i)
            block.register_forward_pre_hook(lambda *_, i=i: self._before(i))
            block.register_forward_hook(lambda *_, i=i: self._leave(i))

    def _fetch(self, i: int) -> None:
        with torch.cuda.stream(self.stream):
            for p, kept in zip(self.weights[i], self.home[i], strict=True):
                p.data = kept.to(self.device, non_blocking=True)
            self.ready[i].record(self.stream)

    def _before(self, i: int) -> None:
        if i == 0:
            self._fetch(0)
        torch.cuda.current_stream().wait_event(self.ready[i])
        for p in self.weights[i]:
            p.data.record_stream(torch.cuda.current_stream())
        if i + 1 < len(self.blocks):
            self.stream.wait_stream(torch.cuda.current_stream())  # two blocks at most are there at a time
            self._fetch(i + 1)

    def _leave(self, i: int) -> None:
        for p, kept in zip(self.weights[i], self.home[i], strict=True):
            p.data = kept


def measure(case: Case, device: str, num: int, backend: str) -> Iterator[str]:
    """Rows of the table: every way's time over plain eager's, and eager's and the compiled one's over the floor.

    Each comes when it is measured, so that a later fault does not lose it.
    """
    model = Ours(case, device)
    wait: Callable[[], Any] = torch.cuda.synchronize if device == "cuda" else SimpleNamespace

    def timed(**ways: Callable[[], Any]) -> dict[str, list[float]]:
        return rounds({name: lambda run=run: (run(), wait()) for name, run in ways.items()}, num, warmup=2)

    def row(a: str, b: str, name: str = "") -> str:
        return f"| {name or a} / {b} | {shown(ratio(times, a, b))} |"

    floor = Floor.record(model.run_ours)
    times = timed(eager=model.ours, floor=floor.replay)
    yield row("eager", "floor")
    if device == "cuda":
        other = Ours(case, device)
        Streamed(other.dit, device)
        times = timed(eager=model.ours, streamed=other.ours)
        yield row("streamed", "eager", "streamed weights")
    other = Ours(case, device)
    other.dit.compile_blocks(backend=backend)
    times = timed(eager=model.ours, compiled=other.ours, floor=floor.replay)
    yield from (row("compiled", "floor"), row("compiled", "eager"))
    del floor
    quantized(other)
    times = timed(eager=model.ours, fp8=other.ours)
    yield row("fp8", "eager", "fp8, compiled")


def case_of(small: bool, double: int = 4, single: int = 8) -> Case:
    """The released width and frame size with so many blocks, or a toy."""
    sizes = {"heads": 24, "double": double, "single": single, "height": 60, "width": 104}
    return Case(**(SMALL if small else sizes), dtype=torch.bfloat16)


def table(small: bool, double: int = 4, single: int = 8, num: int = 10) -> Iterator[str]:
    """The rows with their head; `small` is a toy on the CPU, which says nothing of speed."""
    if not (small or torch.cuda.is_available()):
        raise SystemExit("benchmarks.gpu measures on CUDA, and PyTorch finds no CUDA device here.")
    case = case_of(small, double, single)
    yield from ("A step at 480 x 832", "", "| ratio | median, quartiles |", "|---|---|")
    with torch.no_grad():
        yield from measure(case, "cpu" if small else "cuda", 2 if small else num, "eager" if small else "inductor")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--double", type=int, default=4)
    parser.add_argument("--single", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    lines = [circumstances(), "", *table(False, args.double, args.single, args.rounds)]
    write_section(RESULTS / "gpu.md", "forward", lines)
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
