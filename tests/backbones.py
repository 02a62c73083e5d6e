"""A small model of each backbone, called in one way, for the tests that every backbone passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from framepack.models.backbones import Backbone, backbones
from framepack.models.helios import HeliosSpec
from framepack.models.hunyuan import HunyuanSpec
from framepack.models.packed import PackedDiT
from framepack.models.wan import WanSpec
from framepack.packing.history import ContextGroup
from framepack.packing.kernels import LAYER_NAMES

_HUNYUAN = {"heads": 2, "head_dim": 16, "double_blocks": 2, "single_blocks": 2, "refiner_blocks": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Small:
    """A backbone's small spec, and the inputs beside latents, timestep and text that its forward takes."""

    name: str
    spec: Any
    extra: Callable[[int], dict[str, Tensor]]

    @property
    def backbone(self) -> Backbone:
        return next(b for b in backbones() if b.spec is type(self.spec))

    def model(self, seed: int = 0) -> PackedDiT:
        """With random weights everywhere, so that every layer counts."""
        torch.manual_seed(seed)
        dit = self.backbone.dit(self.spec).eval().requires_grad_(False)
        for parameter in dit.parameters():
            parameter.copy_(0.2 * torch.randn_like(parameter))
        return dit

    def run(
        self,
        model: PackedDiT,
        x: Tensor,
        positions: Sequence[int] | None = None,
        history: Sequence[ContextGroup] = (),
        timestep: float | Tensor = 700.0,
        **options: Any,
    ) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        text = torch.randn(len(x), 5, self.spec.text_dim, generator=generator).to(x)
        timestep = torch.ones(len(x)).to(x) * timestep
        extra = {name: value.to(x) for name, value in self.extra(len(x)).items()}
        return model(x, timestep, text, positions=positions, history=history, transformer_options=options, **extra)


SMALL = (
    Small(
        name="hunyuan",
        spec=HunyuanSpec(
            **_HUNYUAN,
            text_dim=24,
            pooled_dim=12,
            image_dim=None,
            rope_axes=(4, 6, 6),
            kernels=tuple(LAYER_NAMES),
        ),
        extra=lambda b: {"y": torch.ones(b, 12), "guidance": torch.full((b,), 6000.0)},
    ),
    Small(
        name="wan-text",
        spec=WanSpec(heads=2, head_dim=16, ffn_dim=40, blocks=3, text_dim=24),
        extra=lambda b: {},
    ),
    Small(
        name="wan-image",
        spec=WanSpec(heads=2, head_dim=12, ffn_dim=40, blocks=2, text_dim=24, in_channels=36, image_dim=20),
        extra=lambda b: {"image": torch.ones(b, 4, 20)},
    ),
    Small(
        name="helios",
        spec=HeliosSpec(heads=2, head_dim=16, ffn_dim=40, blocks=3, text_dim=24, key_scales=2),
        extra=lambda b: {},
    ),
)
