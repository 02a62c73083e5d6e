"""Sizes of DiT that are measured, and the same weights and inputs in our model and in diffusers' transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from framepack.models.hunyuan import HunyuanDiT, HunyuanSpec
from framepack.packing.history import ContextGroup
from framepack.units import Kernel

WHERE = {"x": range(10, 19), "1": [0, 19], "2": [20, 21], "4": range(22, 38)}  # latent frames, the inverted model's
WORDS, IMAGE = 60, 100  # tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Sizes of one measurement; height and width are latent."""

    heads: int
    double: int
    single: int
    height: int
    width: int
    dtype: torch.dtype


_NARROW = {"heads": 6, "double": 4, "single": 8, "height": 24, "width": 40}
_NARROW_SMALL = {"heads": 6, "double": 2, "single": 4, "height": 16, "width": 24}
_WIDE = {"heads": 24, "double": 1, "single": 2, "dtype": torch.bfloat16}
FULL = {  # fp32 first: bf16 has no fast products on many processors
    "768 wide, 4 + 8 blocks, 24x40, fp32": Case(**_NARROW, dtype=torch.float32),
    "768 wide, 2 + 4 blocks, 30x52, fp32": Case(heads=6, double=2, single=4, height=30, width=52, dtype=torch.float32),
    "768 wide, 4 + 8 blocks, 24x40, bf16": Case(**_NARROW, dtype=torch.bfloat16),
    "3072 wide, 1 + 2 blocks, 16x24, bf16": Case(**_WIDE, height=16, width=24),
}
SMALL = {
    "768 wide, 2 + 4 blocks, 16x24, fp32": Case(**_NARROW_SMALL, dtype=torch.float32),
    "768 wide, 2 + 4 blocks, 16x24, bf16": Case(**_NARROW_SMALL, dtype=torch.bfloat16),
    "3072 wide, 1 + 2 blocks, 8x8, bf16": Case(**_WIDE, height=8, width=8),
}


def inputs(case: Case) -> dict[str, Tensor]:
    """Random inputs of the inverted model's layout: 1x, 2x and 4x history, words and an image."""
    torch.manual_seed(0)
    grid = (case.height, case.width)
    shapes = {"x": (1, 16, 9, *grid), "1": (1, 16, 2, *grid), "2": (1, 16, 2, *grid), "4": (1, 16, 16, *grid)}
    shapes |= {"text": (1, WORDS, 256), "pooled": (1, 64), "image": (1, IMAGE, 64)}
    return {name: torch.randn(shape).to(case.dtype) for name, shape in shapes.items()}


class Ours:
    """The packed model of a case with random weights, and what it is given."""

    def __init__(self, case: Case, device: str = "cpu", operations: Any = nn):
        self.case, self.given = case, {k: x.to(device) for k, x in inputs(case).items()}
        sizes = {"heads": case.heads, "double_blocks": case.double, "single_blocks": case.single}
        spec = HunyuanSpec(**sizes, refiner_blocks=1, text_dim=256, pooled_dim=64, image_dim=64)
        dit = HunyuanDiT(spec, operations=operations, dtype=case.dtype, device=device, exact=True)
        self.dit = dit.eval().requires_grad_(False)
        for weight in self.dit.parameters():
            weight.normal_(std=0.02)
        self.level, self.guidance = (torch.tensor([x], device=device).to(case.dtype) for x in (500.0, 10_000.0))
        self.history = [
            ContextGroup(kernel=Kernel.short(int(k)), latents=self.given[k], positions=tuple(WHERE[k])) for k in "124"
        ]

    def run_ours(self) -> Tensor:
        """A forward, with autograd as the caller has set it."""
        text, pooled, image = (self.given[k] for k in ("text", "pooled", "image"))
        return self.dit(
            *(self.given["x"], self.level, text, pooled, self.guidance),
            positions=WHERE["x"],
            history=self.history,
            image=image,
        )

    @torch.no_grad()
    def ours(self) -> Tensor:
        """A forward."""
        return self.run_ours()


class Pair(Ours):
    """Both models of a case and what they are given."""

    def __init__(self, case: Case):
        super().__init__(case)
        self.reference = _reference(case, self.dit.state_dict())

    @torch.no_grad()
    def theirs(self) -> Tensor:
        """diffusers' transformer."""
        given, places = self.given, {k: torch.tensor(list(v)) for k, v in WHERE.items()}
        mask = torch.ones(1, WORDS, dtype=torch.bool)
        return self.reference(
            *(given["x"], self.level, given["text"], mask, given["pooled"], given["image"], places["x"], self.guidance),
            *(given["1"], places["1"], given["2"], places["2"], given["4"], places["4"]),
            return_dict=False,
        )[0]


def _reference(case: Case, weights: dict[str, Tensor]) -> torch.nn.Module:
    """diffusers' transformer with the same weights."""
    from tools.shim.sitecustomize import mend_torchvision

    mend_torchvision()
    from diffusers import HunyuanVideoFramepackTransformer3DModel

    model = HunyuanVideoFramepackTransformer3DModel(
        num_attention_heads=case.heads,
        num_layers=case.double,
        num_single_layers=case.single,
        num_refiner_layers=1,
        text_embed_dim=256,
        pooled_projection_dim=64,
        has_image_proj=True,
        image_proj_dim=64,
        has_clean_x_embedder=True,
    )
    model.to(case.dtype).load_state_dict(weights)
    return model.eval().requires_grad_(False)
