"""Sizes of Wan 2.1's DiT, read off a checkpoint's shapes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ...errors import CheckpointError
from ...nn.rope import Rope
from ...packing.kernels import LAYER_NAMES
from ...units import Geometry, Kernel
from ..backbones import Shapes, count_blocks, packed_kernels, stated_positions

HEAD_DIM = 128  # of every released size; shapes do not tell it, since q and k are normed over all heads at once


@dataclass(frozen=True, slots=True, kw_only=True)
class WanSpec:
    """Sizes of the DiT. `image_dim` is None for text to video; `in_channels` is 36 with a known image.

    `positions` are the latent frame indices of the training that the file itself states, if it does.
    """

    sections_are_clips: ClassVar[bool] = False  # does each section decode on its own?

    heads: int
    ffn_dim: int
    blocks: int
    head_dim: int = HEAD_DIM
    in_channels: int = 16
    out_channels: int = 16
    text_dim: int = 4096
    image_dim: int | None = None
    kernels: tuple[Kernel, ...] = tuple(LAYER_NAMES)
    positions: range | None = None

    def __post_init__(self) -> None:
        if self.head_dim % 2 or self.head_dim < 6:
            raise CheckpointError(f"Heads must have an even number of channels, 6 or more; got {self.head_dim}.")

    @property
    def geometry(self) -> Geometry:
        """Latents of 8x8 pixels and 4 frames, in patches of 2x2."""
        clips = self.sections_are_clips
        return Geometry(spatial=8, temporal=4, patch=2, channels=self.out_channels, sections_are_clips=clips)

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
    def from_shapes(cls, shapes: Shapes, metadata: Mapping[str, str] | None = None) -> WanSpec:
        """Read the sizes off tensors' shapes; heads of another size than the released ones come from the metadata.

        Raises CheckpointError for another model's shapes.
        """
        sizes = sizes_of(shapes, json.loads((metadata or {}).get("framepack.spec", "{}")), "Wan 2.1")
        if "condition_embedder.image_embedder.pos_embed" in shapes:
            raise CheckpointError("The file is Wan 2.1 for first and last frame; expected text or image to video.")
        image = shapes.get("condition_embedder.image_embedder.norm1.weight")
        return cls(
            **sizes,
            blocks=count_blocks(shapes, "blocks."),
            image_dim=image[0] if image else None,
            kernels=packed_kernels(shapes),
            positions=stated_positions(metadata),
        )


def sizes_of(shapes: Shapes, stated: Mapping[str, Any], model: str) -> dict[str, int]:
    """The sizes that every DiT of Wan's shape has, by field; `stated` may hold the channels of a head.

    Raises CheckpointError, which names the model.
    """
    try:
        width, in_channels = shapes["patch_embedding.weight"][:2]
        head_dim = stated.get("head_dim", HEAD_DIM)
        sizes = {
            "heads": width // head_dim,
            "head_dim": head_dim,
            "ffn_dim": shapes["blocks.0.ffn.net.0.proj.weight"][0],
            "in_channels": in_channels,
            "out_channels": shapes["proj_out.weight"][0] // 4,
            "text_dim": shapes["condition_embedder.text_embedder.linear_1.weight"][1],
        }
    except KeyError as missing:
        raise CheckpointError(f"The file has no tensor {missing}, so it is no whole {model} model.") from None
    if width % head_dim:
        raise CheckpointError(f"The width must be a multiple of a head's {head_dim} channels; got {width}.")
    return sizes


WAN_1_3B = WanSpec(heads=12, ffn_dim=8960, blocks=30)
WAN_14B = WanSpec(heads=40, ffn_dim=13824, blocks=40)
WAN_14B_I2V = WanSpec(heads=40, ffn_dim=13824, blocks=40, in_channels=36, image_dim=1280)
