"""What packing costs: its share of a step at the released model's width, and a section's time as the video grows.

python -m benchmarks.packing [--rounds N]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F

from framepack.models.hunyuan import HunyuanDiT, HunyuanSpec
from framepack.models.memo import KEY, Constants, Store
from framepack.nn.rope import unturned
from framepack.nn.rows import in_runs
from framepack.packing.history import gather
from framepack.planning.plan import Section
from framepack.planning.video import make_plan
from framepack.schedule.grammar import parse
from framepack.shapes.generate import Builtin

from .timing import RESULTS, circumstances, ratio, rounds, shown

SHORT, LONG = 37, 901  # latent frames of 5 s and of 120 s
STEPS = 16  # as the shipped workflow has
TAILS = ("td_f16k4f2k2f1k1_g9", "tc_f16k4f2k2f1k1_g9", "f1k1_x_g9_f1k1f2k2f16k4_td", "f1k1_x_g9_f1k1f2k2f16k4_tc")
GRID = (16, 24)  # latent height and width


def history_of(section: Section, like: torch.Tensor) -> list:
    """A section's history from random latents."""
    torch.manual_seed(0)
    known = {frame: torch.randn(*like.shape[:2], 1, *like.shape[3:]) for frame in sorted(section.known)}
    return gather(section, known, like)


def section_of(model: Builtin, schedule: str, num_lat_frames: int) -> Callable[[], None]:
    """Sample a section that sees all that a video of so many latent frames has: gathering and every step."""
    section = max(make_plan(parse(schedule), num_lat_frames=num_lat_frames).sections, key=lambda s: len(s.known))
    x = torch.randn(1, 16, section.num_lat_frames, 8, 8)
    known = {frame: torch.randn(1, 16, 1, 8, 8) for frame in section.known}
    context, pooled = model.text(torch.tensor([model.tokenizer("a red star moves up")]))
    level = torch.tensor([500.0])

    @torch.no_grad()
    def run() -> None:
        history, options = gather(section, known, x), {KEY: Constants(Store(), level.tolist())}  # as on the host
        where = {"positions": section.positions, "history": history, "transformer_options": options}
        for _ in range(STEPS):
            model.dit(x, level, context, pooled, **where)

    return run


def growth(num: int) -> list[str]:
    """Rows: the time of a section at 120 s over that at 5 s."""
    model, rows = Builtin.load(), []
    for schedule in TAILS:
        times = rounds({"long": section_of(model, schedule, LONG), "short": section_of(model, schedule, SHORT)}, num)
        rows.append(f"| section of `{schedule}` at 120 s / at 5 s | 1.02 | {shown(ratio(times, 'long', 'short'), 3)} |")
    return rows


@torch.no_grad()
def share(num: int) -> str:
    """A row: packing (projection, RoPE, concatenation) over a whole step of the released model."""
    spec = HunyuanSpec(double_blocks=1, single_blocks=1, refiner_blocks=1, text_dim=64, pooled_dim=64, image_dim=None)
    dit = HunyuanDiT(spec).eval().requires_grad_(False)
    section = make_plan(parse("f1k1_x_g9_f1k1f2k2f16k4_td"), num_lat_frames=37).sections[-1]
    x = torch.randn(1, 16, section.num_lat_frames, *GRID)
    history = history_of(section, x)
    tokens, phases = dit.pack(x, section.positions, history)
    text, vec = torch.randn(1, 60, spec.width), F.silu(torch.randn(1, spec.width))
    both, turns = torch.cat([tokens, text], 1), torch.cat([phases, unturned(text.shape[1], phases)], 1)
    run = dit.run({}, phases=turns)._replace(rows=in_runs)
    double, single = dit.transformer_blocks[0], dit.single_transformer_blocks[0]
    parts = {block: [layer(vec) for layer in block.modulations] for block in (double, single)}
    times = rounds(
        {
            "pack": lambda: dit.pack(x, section.positions, history),
            "double": lambda: double(tokens, text, parts[double], run),
            "single": lambda: single(both, parts[single], run),
        },
        num,
    )
    step = [20 * d + 40 * s + p for d, s, p in zip(times["double"], times["single"], times["pack"], strict=True)]
    value = ratio({"pack": times["pack"], "step": step}, "pack", "step")
    return f"| packing / a step of 20 + 40 blocks, 3072 wide, {tokens.shape[1]} tokens | 0.02 | {shown(value, 4)} |"


def main() -> None:
    """Command line; prints and writes benchmarks/results/packing.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    rows = [*growth(args.rounds), share(max(args.rounds // 3, 3))]
    head = f"# Packing\n\n{circumstances()}. Medians of paired ratios, with quartiles.\n\n"
    text = head + "| what | target | measured |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "packing.md").write_text(text, "utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
