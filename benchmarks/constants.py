"""What is not blocks: its share of a step from the second step of the second section, at the released model's width.

python -m benchmarks.constants [--rounds N]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from framepack.models.hunyuan import HunyuanDiT, HunyuanSpec
from framepack.models.memo import KEY, Constants, Store
from framepack.nn.layers import Modulation
from framepack.nn.rope import unturned
from framepack.nn.rows import in_runs
from framepack.planning.video import make_plan
from framepack.schedule.grammar import parse

from .packing import GRID, history_of
from .timing import RESULTS, circumstances, ratio, rounds, shown

SPEC = {"double_blocks": 1, "single_blocks": 1, "image_dim": 1152}
BLOCKS = (20, 40)  # of the released model
WORDS, SEEN = 60, 729  # tokens of a prompt and of a vision encoder
LEVELS = tuple(1000 * (1 - i / 25) for i in range(25))


def inputs() -> dict[str, Any]:
    """A forward's, at a released model's sizes."""
    torch.manual_seed(0)
    section = make_plan(parse("f1k1_x_g9_f1k1f2k2f16k4_td"), num_lat_frames=37).sections[-1]
    x = torch.randn(1, 16, section.num_lat_frames, *GRID)
    prompt = {"context": torch.randn(1, WORDS, 4096), "y": torch.randn(1, 768), "image": torch.randn(1, SEEN, 1152)}
    levels = {"timestep": torch.tensor([LEVELS[3]]), "guidance": torch.tensor([10000.0])}
    return {"x": x, "positions": section.positions, "history": history_of(section, x), **prompt, **levels}


def bare(dit: HunyuanDiT) -> Callable[..., Any]:
    """The forward with blocks that hand their tokens on: all that is not blocks, lookups of modulations included."""

    def double(args: dict[str, Any], _: Any) -> dict[str, Any]:
        return {"img": args["img"], "txt": args["txt"]}

    def single(args: dict[str, Any], _: Any) -> dict[str, Any]:
        return {"img": args["img"]}

    patches = {("double_block", 0): double, ("single_block", 0): single}
    return lambda options, **given: dit(**given, transformer_options={**options, "patches_replace": {"dit": patches}})


def blocks_of(dit: HunyuanDiT, given: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """One block of each kind on the tokens of the step, its modulations given."""
    tokens, phases = dit.pack(given["x"], given["positions"], given["history"])
    text = torch.randn(1, WORDS + SEEN, dit.spec.width)
    phases = torch.cat([phases, unturned(text.shape[1], phases)], 1)
    run = dit.run({}, phases=phases)._replace(rows=in_runs)
    double, single = dit.transformer_blocks[0], dit.single_transformer_blocks[0]
    vec = torch.randn(1, dit.spec.width)

    def parts(block: nn.Module) -> list[tuple[Tensor, ...]]:
        return [layer(vec) for layer in block.modulations]

    return {
        "double": partial(double, tokens, text, parts(double), run),
        "single": partial(single, torch.cat([tokens, text], 1), parts(single), run),
    }


def modulations(dit: HunyuanDiT, double: int, single: int) -> Callable[[], None]:
    """The modulations of so many blocks, computed as a step without a table does."""
    vec, kinds = torch.randn(1, dit.spec.width), (dit.transformer_blocks[0], dit.single_transformer_blocks[0])
    layers: list[Modulation] = [
        m for block, n in zip(kinds, (double, single), strict=True) for m in block.modulations * n
    ]

    def run() -> None:
        for layer in layers:
            layer(vec)

    return run


@torch.no_grad()
def rows(num: int) -> list[str]:
    """The share with what is kept, and without."""
    dit = HunyuanDiT(HunyuanSpec(**SPEC)).eval().requires_grad_(False)
    given, forward, constants = inputs(), bare(dit), {KEY: Constants(Store(), LEVELS)}
    forward(constants, **given)
    candidates = {
        "kept": lambda: forward(constants, **given),
        "afresh": lambda: forward({}, **given),
        "modulations": modulations(dit, *BLOCKS),
        **blocks_of(dit, given),
    }
    times = rounds(candidates, num)
    step = [BLOCKS[0] * d + BLOCKS[1] * s for d, s in zip(times["double"], times["single"], strict=True)]
    table = {
        "kept": times["kept"],
        "afresh": [a + b for a, b in zip(times["afresh"], times["modulations"], strict=True)],
    }
    table |= {f"{name} step": [a + b for a, b in zip(table[name], step, strict=True)] for name in ("kept", "afresh")}
    kept, afresh = (shown(ratio(table, name, f"{name} step"), 4) for name in ("kept", "afresh"))
    num_tokens = dit.pack(given["x"], given["positions"], given["history"])[0].shape[1]
    what = (
        f"of a step of {BLOCKS[0]} + {BLOCKS[1]} blocks, 3072 wide, {num_tokens} picture tokens, {WORDS + SEEN} of text"
    )
    return [
        f"| all that is not blocks, from step 2 of section 2, {what} | 0.005 | {kept} |",
        f"| the same where nothing is kept (modulations, words, image, phases and history afresh) | - | {afresh} |",
    ]


def main() -> None:
    """Command line; prints and writes benchmarks/results/constants.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    head = f"# Constants\n\n{circumstances()}. Medians of paired ratios, with quartiles.\n\n"
    text = head + "| what | target | measured |\n|---|---|---|\n" + "\n".join(rows(args.rounds)) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "constants.md").write_text(text, "utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
