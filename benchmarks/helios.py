"""Helios: one forward against diffusers' transformer in time, memory and error.

python -m benchmarks.helios [--rounds N] [--full]

Time is the processor's; memory is what a forward needs beyond weights and inputs. `--full` takes a larger section.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import torch
from torch import Tensor

from framepack.models.helios import HeliosDiT, HeliosSpec
from framepack.packing.history import ContextGroup
from framepack.units import Kernel

from .activations import peak
from .floor import Floor
from .forward import relative
from .timing import RESULTS, circumstances, ratio, rounds, shown

WHERE = {"1": (0, 19), "2": (17, 18), "4": tuple(range(1, 17))}  # latent frames of history, as released
SECTION = range(20, 29)
WORDS = 512
HEADS, FFN, BLOCKS, TEXT = 6, 2048, 4, 256  # 768 wide; the released model's ffn is 2.7 times its width
SIZES = {"small": (16, 24), "full": (24, 40)}  # latent height and width


class Pair:
    """The same weights and inputs in our model and in diffusers'."""

    def __init__(self, height: int, width: int):
        torch.manual_seed(0)
        kernels = tuple(Kernel.short(int(k)) for k in WHERE)
        spec = HeliosSpec(heads=HEADS, ffn_dim=FFN, blocks=BLOCKS, text_dim=TEXT, kernels=kernels)
        self.dit = HeliosDiT(spec).eval().requires_grad_(False)
        for weight in self.dit.parameters():
            weight.normal_(std=0.02)
        self.reference = _reference(spec, self.dit.state_dict())
        self.x, self.text = torch.randn(1, 16, len(SECTION), height, width), torch.randn(1, WORDS, TEXT)
        self.level = torch.tensor([500.0])
        self.latents = {k: torch.randn(1, 16, len(where), height, width) for k, where in WHERE.items()}
        self.history = [
            ContextGroup(kernel=Kernel.short(int(k)), latents=self.latents[k], positions=where)
            for k, where in WHERE.items()
        ]

    @torch.no_grad()
    def ours(self) -> Tensor:
        """A forward."""
        return self.run_ours()

    def run_ours(self) -> Tensor:
        """A forward, with autograd as the caller has set it."""
        return self.dit(self.x, self.level, self.text, positions=SECTION, history=self.history)

    @torch.no_grad()
    def theirs(self) -> Tensor:
        """diffusers' transformer."""
        given = {}
        for k, name in (("1", "short"), ("2", "mid"), ("4", "long")):
            given[f"latents_history_{name}"] = self.latents[k]
            given[f"indices_latents_history_{name}"] = torch.tensor(WHERE[k])[None]
        indices = torch.tensor(SECTION)[None]
        return self.reference(self.x, self.level, self.text, indices_hidden_states=indices, return_dict=False, **given)[
            0
        ]


def _reference(spec: HeliosSpec, weights: dict[str, Tensor]) -> torch.nn.Module:
    from tools.shim.sitecustomize import mend_torchvision

    mend_torchvision()
    from diffusers import HeliosTransformer3DModel

    model = HeliosTransformer3DModel(
        num_attention_heads=spec.heads,
        attention_head_dim=spec.head_dim,
        num_layers=spec.blocks,
        ffn_dim=spec.ffn_dim,
        text_dim=spec.text_dim,
        rope_dim=spec.rope.axes,
    )
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def measure(size: str, num: int) -> str:
    """A row of the table."""
    pair = Pair(*SIZES[size])
    error = relative(pair.ours(), pair.theirs())
    floor = Floor.record(pair.run_ours)
    times = rounds(
        {"ours": pair.ours, "diffusers": pair.theirs, "floor": floor.replay}, num, warmup=0, clock=time.process_time
    )
    ours, theirs = peak(pair.ours), peak(pair.theirs)
    height, width = SIZES[size]
    cells = (
        f"768 wide, {BLOCKS} blocks, {height}x{width}, fp32",
        shown(ratio(times, "ours", "floor")),
        shown(ratio(times, "ours", "diffusers")),
        f"{error:.0e}",
        f"{statistics.median(times['ours']):.1f}",
        f"{ours / 2**20:.0f} MiB",
        f"{theirs / 2**20:.0f} MiB",
        f"{ours / theirs:.2f}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--full", action="store_true", help="a larger section too")
    args = parser.parse_args()
    rows = [measure(size, args.rounds) for size in SIZES if size == "small" or args.full]
    head = [
        *("# Helios: one forward of the DiT", "", circumstances(), ""),
        f"Processor seconds, medians of {args.rounds} paired ratios, with quartiles. Memory is the peak beyond weights",
        "and inputs. The history is the released one's: 19 latent frames and the start, 512 words.",
        "",
        "| case | ours / floor | ours / diffusers | error | s | ours | diffusers | memory ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    text = "\n".join([*head, *rows]) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "helios.md").write_text(text, "utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
