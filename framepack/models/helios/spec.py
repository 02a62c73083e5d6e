"""Sizes of Helios' DiT, read off a checkpoint's shapes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ...errors import CheckpointError
from ...units import Kernel
from ..backbones import Shapes, count_blocks, packed_kernels, stated_positions
from ..wan.spec import WanSpec, sizes_of
from .names import PACKING


@dataclass(frozen=True, slots=True, kw_only=True)
class HeliosSpec(WanSpec):
    """Sizes and options of the DiT: Wan's sizes without its branch for images.

    `key_scales`: learned scales of the history's keys, one per head or one for all; 0 for none.
    `clean_history`: history rows are modulated at timestep 0. `text_to_section`: only section rows see the text.
    """

    sections_are_clips: ClassVar[bool] = True

    key_scales: int = 0
    clean_history: bool = True
    text_to_section: bool = True
    kernels: tuple[Kernel, ...] = tuple(PACKING)

    def __post_init__(self) -> None:
        WanSpec.__post_init__(self)  # super() does not know a class with slots
        if self.key_scales not in (0, 1, self.heads):
            raise CheckpointError(
                f"History keys must have one scale or one per head ({self.heads}); got {self.key_scales}."
            )

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
