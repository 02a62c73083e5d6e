"""One forward of the DiT against diffusers' transformer and against the floor of bare products.

python -m benchmarks.forward [--rounds N] [--case NAME]
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from framepack.models.hunyuan import HunyuanDiT, HunyuanSpec
from framepack.packing.history import ContextGroup
from framepack.units import Kernel
from tools.shim.sitecustomize import mend_torchvision

from .floor import Floor
from .timing import RESULTS, circumstances, ratio, rounds, shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Sizes of one measurement; height and width are latent."""

    heads: int
    double: int
    single: int
    height: int
    width: int
    dtype: torch.dtype


CASES = {
    "768 wide, 4 + 8 blocks, fp32": Case(heads=6, double=4, single=8, height=24, width=40, dtype=torch.float32),
    "3072 wide, 1 + 2 blocks, fp32": Case(heads=24, double=1, single=2, height=16, width=24, dtype=torch.float32),
}


def spec_of(case: Case) -> HunyuanSpec:
    """The DiT of a case."""
    sizes = {"heads": case.heads, "double_blocks": case.double, "single_blocks": case.single, "refiner_blocks": 1}
    return HunyuanSpec(**sizes, text_dim=256, pooled_dim=64, image_dim=64)


def inputs(case: Case) -> dict[str, Tensor]:
    """Random inputs of the inverted model's layout, 1x, 2x and 4x history and 60 text tokens."""
    torch.manual_seed(0)
    grid = (case.height, case.width)
    shapes = {"x": (1, 16, 9, *grid), "1": (1, 16, 2, *grid), "2": (1, 16, 2, *grid), "4": (1, 16, 16, *grid)}
    shapes |= {"text": (1, 60, 256), "pooled": (1, 64), "image": (1, 100, 64)}
    return {name: torch.randn(shape).to(case.dtype) for name, shape in shapes.items()}


def theirs(case: Case, weights: dict[str, Tensor]) -> torch.nn.Module:
    """diffusers' transformer with the same weights."""
    mend_torchvision()
    from diffusers import HunyuanVideoFramepackTransformer3DModel

    sizes = {"num_attention_heads": case.heads, "num_layers": case.double, "num_single_layers": case.single}
    model = HunyuanVideoFramepackTransformer3DModel(
        **sizes,
        num_refiner_layers=1,
        text_embed_dim=256,
        pooled_projection_dim=64,
        has_image_proj=True,
        image_proj_dim=64,
        has_clean_x_embedder=True,
    )
    model.load_state_dict(weights)
    return model.to(case.dtype).eval().requires_grad_(False)


def measure(name: str, case: Case, num: int) -> str:
    """A row of the table."""
    torch.manual_seed(0)
    dit = HunyuanDiT(spec_of(case))
    weights = {k: 0.02 * torch.randn_like(v) for k, v in dit.state_dict().items()}
    dit.load_state_dict(weights)
    dit = dit.to(case.dtype).eval().requires_grad_(False)
    reference, given = theirs(case, weights), inputs(case)
    where = {"x": range(10, 19), "1": [0, 19], "2": [20, 21], "4": range(22, 38)}
    history = [ContextGroup(kernel=Kernel.short(int(k)), latents=given[k], positions=tuple(where[k])) for k in "124"]
    level, guidance = torch.tensor([500.0]).to(case.dtype), torch.tensor([10_000.0]).to(case.dtype)
    places = {k: torch.tensor(list(v)) for k, v in where.items()}
    mask = torch.ones(1, 60, dtype=torch.bool)

    @torch.no_grad()
    def ours_once() -> Tensor:
        text, pooled, image = given["text"], given["pooled"], given["image"]
        return dit(given["x"], level, text, pooled, guidance, positions=where["x"], history=history, image=image)

    @torch.no_grad()
    def theirs_once() -> Tensor:
        return reference(
            *(given["x"], level, given["text"], mask, given["pooled"], given["image"], places["x"], guidance),
            *(given["1"], places["1"], given["2"], places["2"], given["4"], places["4"]),
            return_dict=False,
        )[0]

    error = float((ours_once() - theirs_once()).float().norm() / theirs_once().float().norm())
    floor = Floor.record(ours_once)
    times = rounds({"ours": ours_once, "diffusers": theirs_once, "floor": floor.replay}, num)
    cells = [shown(ratio(times, a, b)) for a, b in (("ours", "floor"), ("ours", "diffusers"), ("diffusers", "floor"))]
    return f"| {name} | {' | '.join(cells)} | {error:.0e} |"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", choices=list(CASES))
    args = parser.parse_args()
    rows = [measure(name, case, args.rounds) for name, case in CASES.items() if args.case in (None, name)]
    head = ["# One forward of the DiT", "", circumstances(), "", "Medians of paired ratios, with quartiles.", ""]
    table = ["| case | ours / floor | ours / diffusers | diffusers / floor | error |", "|---|---|---|---|---|", *rows]
    text = "\n".join([*head, *table]) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "forward.md").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
