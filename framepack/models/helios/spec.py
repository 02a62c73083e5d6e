"""Sizes of Helios' DiT, read off a checkpoint's shapes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from ...errors import CheckpointError
from ...nn.rope import Rope
from ...units import Geometry, Kernel
from ..backbones import Shapes, count_blocks, packed_kernels, stated_positions
from ..wan.spec import HEAD_DIM, sizes_of
from .names import PACKING


@dataclass(frozen=True, slots=True, kw_only=True)
class HeliosSpec:
    """Sizes and options of the DiT.

    `key_scales`: learned scales of the history's keys, one per head or one for all; 0 for none.
    `clean_history`: history rows are modulated at timestep 0. `text_to_section`: only section rows see the text.
    `positions`: the latent frame indices of the training that the file itself states, if it does.
    """

    heads: int
    ffn_dim: int
    blocks: int
    head_dim: int = HEAD_DIM
    in_channels: int = 16
    out_channels: int = 16
    text_dim: int = 4096
    key_scales: int = 0
    clean_history: bool = True
    text_to_section: bool = True
    image_dim: int | None = None  # Helios has no image branch
    kernels: tuple[Kernel, ...] = tuple(PACKING)
    positions: range | None = None

    def __post_init__(self) -> None:
        if self.head_dim % 2 or self.head_dim < 6:
            raise CheckpointError(f"A head must have an even number of channels, 6 or more; got {self.head_dim}.")
        if self.key_scales not in (0, 1, self.heads):
            raise CheckpointError(
                f"History keys must have one scale or one per head ({self.heads}); got {self.key_scales}."
            )

    @property
    def geometry(self) -> Geometry:
        """Wan's: latents of 8x8 pixels and 4 frames, in patches of 2x2. Each section decodes on its own."""
        return Geometry(spatial=8, temporal=4, patch=2, channels=self.out_channels, sections_are_clips=True)

    @property
    def width(self) -> int:
        """Channels of the residual stream."""
        return self.heads * self.head_dim

    @property
    def blocks_said(self) -> str:
        """Its blocks, for people."""
        return str(self.blocks)

    @property
    def rope(self) -> Rope:
        """The rotary embedding: a third of the pairs for height and width each, the rest for time."""
        space = 2 * (self.head_dim // 6)
        return Rope(axes=(self.head_dim - 2 * space, space, space), theta=10_000.0)

    @classmethod
    def from_shapes(cls, shapes: Shapes, metadata: Mapping[str, str] | None = None) -> HeliosSpec:
        """Read the sizes off tensors' shapes. Other heads than the released ones, and options, come from the metadata.

        Raises CheckpointError for another model's shapes.
        """
        stated = json.loads((metadata or {}).get("framepack.spec", "{}"))
        options = {name: stated[name] for name in ("clean_history", "text_to_section") if name in stated}
        sizes = sizes_of(shapes, stated, "Helios")
        scales = shapes.get("blocks.0.attn1.history_key_scale", (0,))
        return cls(
            **sizes,
            **options,
            blocks=count_blocks(shapes, "blocks."),
            key_scales=scales[0],
            kernels=packed_kernels(shapes, PACKING),
            positions=stated_positions(metadata),
        )


HELIOS_14B = HeliosSpec(heads=40, ffn_dim=13824, blocks=40, kernels=tuple(PACKING)[:3])
