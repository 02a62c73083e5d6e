"""Sizes of HunyuanVideo's DiT, read off a checkpoint's shapes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from ...errors import CheckpointError
from ...nn.rope import Rope
from ...units import Geometry, Kernel
from ..backbones import Shapes, count_blocks, packed_kernels, stated_positions


@dataclass(frozen=True, slots=True, kw_only=True)
class HunyuanSpec:
    """Sizes of the DiT. `image_dim` is None without an image projection; `kernels` have layers of their own.

    `positions` are the latent frame indices of the training that the file itself states, if it does.
    """

    heads: int = 24
    head_dim: int = 128
    double_blocks: int = 20
    single_blocks: int = 40
    refiner_blocks: int = 2
    mlp_ratio: int = 4
    in_channels: int = 16
    text_dim: int = 4096
    pooled_dim: int = 768
    guidance: bool = True
    image_dim: int | None = 1152
    kernels: tuple[Kernel, ...] = (Kernel(1, 2, 2), Kernel(2, 4, 4), Kernel(4, 8, 8))
    rope_axes: tuple[int, int, int] = (16, 56, 56)
    rope_theta: float = 256.0
    positions: range | None = None

    def __post_init__(self) -> None:
        if sum(self.rope_axes) != self.head_dim or any(a % 2 for a in self.rope_axes):
            raise CheckpointError(f"RoPE axes must be even and add up to {self.head_dim}; got {self.rope_axes}.")

    @property
    def geometry(self) -> Geometry:
        """Latents of 8x8 pixels and 4 frames, in patches of 2x2."""
        return Geometry(spatial=8, temporal=4, patch=2, channels=self.in_channels)

    @property
    def width(self) -> int:
        """Channels of the residual stream."""
        return self.heads * self.head_dim

    @property
    def blocks_said(self) -> str:
        """Its blocks, for people."""
        return f"{self.double_blocks} + {self.single_blocks}"

    @property
    def rope(self) -> Rope:
        """The rotary embedding."""
        return Rope(axes=self.rope_axes, theta=self.rope_theta)

    @classmethod
    def from_shapes(cls, shapes: Shapes, metadata: Mapping[str, str] | None = None) -> HunyuanSpec:
        """Read the sizes off tensors' shapes; RoPE comes from the metadata, if it is there.

        Raises CheckpointError for another model's shapes.
        """
        try:
            width = shapes["x_embedder.proj.weight"][0]
            head_dim = shapes["transformer_blocks.0.attn.norm_q.weight"][0]
            inner = shapes["transformer_blocks.0.ff.net.0.proj.weight"][0]
            sizes = {
                "heads": width // head_dim,
                "head_dim": head_dim,
                "mlp_ratio": inner // width,
                "in_channels": shapes["x_embedder.proj.weight"][1],
                "text_dim": shapes["context_embedder.proj_in.weight"][1],
                "pooled_dim": shapes["time_text_embed.text_embedder.linear_1.weight"][1],
            }
        except KeyError as missing:
            raise CheckpointError(
                f"The file has no tensor {missing}, so it is no FramePack model; expected FramePackI2V_HY, "
                "FramePack_F1_I2V_HY or one that this pack trained or converted."
            ) from None
        up = shapes.get("image_projection.up.weight")
        return cls(
            **sizes,
            double_blocks=count_blocks(shapes, "transformer_blocks."),
            single_blocks=count_blocks(shapes, "single_transformer_blocks."),
            refiner_blocks=count_blocks(shapes, "context_embedder.token_refiner.refiner_blocks."),
            guidance="time_text_embed.guidance_embedder.linear_1.weight" in shapes,
            image_dim=up[1] if up else None,
            kernels=packed_kernels(shapes),
            positions=stated_positions(metadata),
            **_rope(head_dim, metadata or {}),
        )


def _rope(head_dim: int, metadata: Mapping[str, str]) -> dict[str, object]:
    if "framepack.spec" in metadata:
        stated = json.loads(metadata["framepack.spec"])
        return {"rope_axes": tuple(stated["rope_axes"]), "rope_theta": float(stated["rope_theta"])}
    time = max(2, head_dim // 16 * 2)  # an eighth for time, as in the released 128
    space = (head_dim - time) // 4 * 2
    return {"rope_axes": (head_dim - 2 * space, space, space)}
