"""HunyuanVideo's DiT with a packed history: the FramePack model (released weights fit by key and shape).

Dims: b batch, c channels, t h w latent grid, l tokens, d width. Picture tokens stand in the order history, section;
text tokens in the order image, words. Only the section's tokens, the last ones, are read out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...nn.attention import Attention, sdpa
from ...nn.layers import Factory, Modulation, modulated_norm
from ...nn.rope import Phases
from ...packing.embedding import PackedEmbedding
from ...packing.history import ContextGroup
from ...units import BASE
from ..memo import PartsOf, constants_of
from ..packed import EVERY, PackedDiT, read_of, replaced, section_grid
from .blocks import Conditioning, DoubleBlock, Parts, SingleBlock, TokenRefiner
from .spec import HunyuanSpec


class _Patchify(nn.Module):
    """Holds the base patchify projection under its checkpoint name."""

    def __init__(self, make: Factory, channels: int, width: int):
        super().__init__()
        self.proj = make.conv3d(channels, width, (BASE.t, BASE.h, BASE.w))


class _ImageProjection(nn.Module):
    """Vision encoder states to text-stream tokens."""

    def __init__(self, make: Factory, image_dim: int, width: int):
        super().__init__()
        self.up, self.down = make.linear(image_dim, width * 3), make.linear(width * 3, width)

    def forward(self, image: Tensor) -> Tensor:
        return self.down(F.silu(self.up(image)))


class HunyuanDiT(PackedDiT):
    """Predicts the velocity of a section from its noisy latents, its packed history and the prompt."""

    BLOCKS = ("transformer_blocks", "single_transformer_blocks")

    def __init__(
        self,
        spec: HunyuanSpec,
        operations: Any = nn,
        attention: Attention = sdpa,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ):
        make = Factory(operations=operations, dtype=dtype, device=device)
        super().__init__(spec, attention)
        d, c = spec.width, spec.in_channels
        self.x_embedder = _Patchify(make, c, d)
        self.clean_x_embedder = PackedEmbedding(make, c, d, spec.kernels)
        self.context_embedder = TokenRefiner(make, spec)
        if spec.image_dim:
            self.image_projection = _ImageProjection(make, spec.image_dim, d)
        self.time_text_embed = Conditioning(make, spec.pooled_dim, d, spec.guidance)
        self.transformer_blocks = nn.ModuleList([DoubleBlock(make, spec) for _ in range(spec.double_blocks)])
        self.single_transformer_blocks = nn.ModuleList([SingleBlock(make, spec) for _ in range(spec.single_blocks)])
        self.norm_out = Modulation(make, d, 2)
        self.proj_out = make.linear(d, c * BASE.size)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        y: Tensor,
        guidance: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        positions: Sequence[int] | None = None,
        history: Sequence[ContextGroup] = (),
        image: Tensor | None = None,
        transformer_options: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """Velocity of a section, ``b c t h w`` like x.

        x noisy latents; timestep ``b`` in [0, 1000]; context ``b l text_dim`` and its mask ``b l`` (True where a
        word stands); y pooled text ``b p``; guidance ``b`` times 1000; positions ``t`` latent frame indices;
        image ``b l image_dim``. Raises LatentSizeError where positions and frames disagree.
        """
        options = transformer_options or {}
        constants = constants_of(options)
        context, attention_mask = trim(context, attention_mask)
        tokens, phases = self.pack(x, positions, history, constants)
        parts_of = constants.modulation(self.modulations, timestep, (y, guidance), self.activated)
        text = self.refined(context, attention_mask, timestep, options)
        if image is not None and self.spec.image_dim:
            seen = constants.keep("image", None, (image,), lambda: self.image_projection(image))
            text = torch.cat([seen, text], 1)
        mask = key_mask(attention_mask, tokens.shape[1] + text.shape[1])
        t, h, w = section_grid(x)
        tokens = self.run_blocks(tokens, text, parts_of, phases, self.attend(mask, options), options, t * h * w)
        scale, shift = parts_of(self.norm_out)
        out = self.proj_out(modulated_norm(tokens, shift, scale))
        out = rearrange(out, "b (t h w) (c ph pw) -> b c t (h ph) (w pw)", t=t, h=h, ph=BASE.h, pw=BASE.w)
        return out[..., : x.shape[3], : x.shape[4]]

    @property
    def modulations(self) -> list[Modulation]:
        """Every layer that depends on nothing but timestep, guidance and pooled text."""
        blocks = [*self.transformer_blocks, *self.single_transformer_blocks]
        return [*(layer for block in blocks for layer in block.modulations), self.norm_out]

    def activated(self, timestep: Tensor, y: Tensor, guidance: Tensor | None) -> Tensor:
        """What the modulations take, ``b d``."""
        return F.silu(self.time_text_embed(timestep, y, guidance))

    def refined(self, context: Tensor, mask: Tensor | None, timestep: Tensor, options: Mapping[str, Any]) -> Tensor:
        """Word tokens ``b l d``, refined; kept for each of the run's noise levels."""
        constants = constants_of(options)
        level = constants.level(timestep)
        kept: dict[float, Tensor] = constants.keep("words", constants.levels, (context, mask), dict)
        if level in kept:
            return kept[level]
        attend = self.attend(key_mask(mask, context.shape[1]), options)
        text = self.context_embedder(context, timestep, mask, attend)
        if level in constants.levels:
            kept[level] = text
        return text

    @property
    def patchify(self) -> nn.Module:
        """The base patchify projection."""
        return self.x_embedder.proj

    def run_blocks(
        self,
        x: Tensor,
        text: Tensor,
        parts_of: PartsOf,
        phases: Phases,
        attend: Any,
        options: Mapping[str, Any],
        num_read: int,
    ) -> Tensor:
        """All blocks; picture tokens ``b l d`` in, the last ones, which are read, out.

        The host's block replacements count.
        """

        def double(i: int, x: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
            block = self.transformer_blocks[i]
            run, parts = partial(_double, block, phases=phases, attend=attend), _parts(block, parts_of)
            out = replaced(options, "double_block", i, run)({"img": x, "txt": text, "vec": parts, "pe": phases})
            return out["img"], out["txt"]

        for i in range(len(self.transformer_blocks)):
            x, text = double(i, x, text)
        num = x.shape[1]
        x = torch.cat([x, text], 1)
        section, last = slice(num - num_read, num), len(self.single_transformer_blocks) - 1
        for i, block in enumerate(self.single_transformer_blocks):
            read = read_of(options, "single_block", i, section) if i == last else EVERY
            run = partial(_single, block, phases=phases, attend=attend, read=read)
            parts = _parts(block, parts_of)
            x = replaced(options, "single_block", i, run)({"img": x, "vec": parts, "pe": phases})["img"]
        return x if x.shape[1] == num_read else x[:, section]

    @torch.no_grad()
    def init_weights(self) -> None:
        """For training from scratch: Xavier, modulation and output zero, packing layers from the base."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            if isinstance(module, Modulation) or name == "proj_out":
                linear = module.linear if isinstance(module, Modulation) else module
                nn.init.zeros_(linear.weight)
                nn.init.zeros_(linear.bias)
        patch = self.patchify.weight
        nn.init.xavier_uniform_(patch.view(patch.shape[0], -1))
        self.clean_x_embedder.init_from(self.patchify)


def trim(context: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Cut padding that no item of the batch needs; without any left there is no mask."""
    if mask is None:
        return context, None
    mask = mask.bool()
    longest = max(int(mask.sum(1).max()), 1)
    context, mask = context[:, :longest], mask[:, :longest]
    return context, None if bool(mask.all()) else mask


def key_mask(mask: Tensor | None, num_tokens: int) -> Tensor | None:
    """Word mask ``b l`` to a key mask ``b 1 1 num_tokens`` of the whole sequence, words last."""
    if mask is None:
        return None
    return F.pad(mask, (num_tokens - mask.shape[1], 0), value=True)[:, None, None]


def _parts(block: DoubleBlock | SingleBlock, parts_of: PartsOf) -> Parts:
    """A block's shifts, scales and gates, looked up outside of it: what is compiled sees tensors alone."""
    return tuple(parts_of(layer) for layer in block.modulations)


def _double(block: DoubleBlock, args: dict[str, Any], phases: Phases, attend: Any) -> dict[str, Any]:
    x, text = block(args["img"], args["txt"], args["vec"], phases, attend)
    return {"img": x, "txt": text}


def _single(block: SingleBlock, args: dict[str, Any], phases: Phases, attend: Any, read: slice) -> dict[str, Any]:
    return {"img": block(args["img"], args["vec"], phases, attend, read)}
