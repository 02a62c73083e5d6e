"""HunyuanVideo's DiT with a packed history: the FramePack model (released weights fit by key and shape).

Dims: b batch, c channels, t h w latent grid, l tokens, d width. Picture tokens `img` stand in the order history,
section; text tokens `txt` in the order image, words. Only the section's tokens are read out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.attention import Attention, sdpa
from ...nn.layers import Factory, Modulation, modulated_norm
from ...nn.rope import unturned
from ...packing.embedding import PackedEmbedding
from ...packing.history import ContextGroup
from ...units import BASE
from ..memo import Constants, PartsOf, constants_of
from ..packed import PackedDiT
from ..running import EVERY, Blocks, Past, Run
from .blocks import Conditioning, DoubleBlock, SingleBlock, TokenRefiner
from .spec import HunyuanSpec


class _Patchify(nn.Module):
    """Holds the base patchify projection under its checkpoint name."""

    def __init__(self, make: Factory, spec: HunyuanSpec):
        super().__init__()
        self.proj = make.conv3d(spec.in_channels, spec.width, spec.geometry.latents(BASE))


class _ImageProjection(nn.Module):
    """Vision encoder states to text-stream tokens."""

    def __init__(self, make: Factory, image_dim: int, width: int):
        super().__init__()
        self.up, self.down = make.linear(image_dim, width * 3), make.linear(width * 3, width)

    def forward(self, image: Tensor) -> Tensor:
        return self.down(F.silu(self.up(image)))


def _parts_by_layer(parts_of: PartsOf, block: nn.Module) -> list[tuple[Tensor, ...]]:
    return [parts_of(layer) for layer in block.modulations]


class HunyuanDiT(PackedDiT):
    """Predicts the velocity of a section from its noisy latents, its packed history and the prompt.

    Timesteps are rounded to bfloat16 where x is bfloat16, and guidance always (10000 becomes 9984), as in the released
    implementation. `exact` keeps both as given.
    """

    BLOCKS = ("transformer_blocks", "single_transformer_blocks")

    def __init__(
        self,
        spec: HunyuanSpec,
        operations: Any = nn,
        attention: Attention = sdpa,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        *,
        exact: bool = False,
    ):
        make = Factory(operations=operations, dtype=dtype, device=device)
        super().__init__(spec, attention)
        self.exact = exact
        d, c, geometry = spec.width, spec.in_channels, spec.geometry
        self.x_embedder = _Patchify(make, spec)
        self.clean_x_embedder = PackedEmbedding(make, c, d, spec.kernels, geometry=geometry)
        self.context_embedder = TokenRefiner(make, spec)
        if spec.image_dim:
            self.image_projection = _ImageProjection(make, spec.image_dim, d)
        self.time_text_embed = Conditioning(make, spec.pooled_dim, d, spec.guidance)
        self.transformer_blocks = nn.ModuleList([DoubleBlock(make, spec) for _ in range(spec.double_blocks)])
        self.single_transformer_blocks = nn.ModuleList([SingleBlock(make, spec) for _ in range(spec.single_blocks)])
        self.norm_out = Modulation(make, d, 2)
        self.proj_out = make.linear(d, c * geometry.patch**2)

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
        causal_history: bool = False,
        transformer_options: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """Velocity of a section, ``b c t h w`` like x.

        x noisy latents; timestep ``b`` in [0, 1000]; context ``b l text_dim`` and its mask ``b l`` (True where a
        word stands); y pooled text ``b p``; guidance ``b`` times 1000; positions ``t`` latent frame indices;
        image ``b l image_dim``. With `causal_history` the history sees only itself, at timestep 0. Raises
        LatentSizeError where positions and frames disagree.
        """
        options = transformer_options or {}
        timestep, guidance, constants = self.rounded(timestep, guidance, constants_of(options), x.dtype)
        context, mask = trim(context, attention_mask)
        txt = self.text(context, mask, timestep, image=image, options=options, constants=constants)
        parts_of = constants.modulation(self.modulations, timestep, (y, guidance), self.activated)
        vec = partial(_parts_by_layer, parts_of)
        causal = (y, guidance) if causal_history else None
        img, phases, shares, section, pasts = self.pictured(
            x, positions, history, options, constants, num_text=txt.shape[1], causal=causal
        )
        txt = self.ranks.own(txt)
        phases = torch.cat([phases, unturned(txt.shape[1], phases)], 1)
        run = self.run(options, key_mask(mask, sum(shares.segments)), phases, shares)
        blocks = Blocks(run, options, self.takes_runs, ("single_block", self.spec.single_blocks - 1), section)
        for i, block in enumerate(self.transformer_blocks):
            img, txt = blocks("double_block", i, block, pasts[i], img=img, txt=txt, vec=vec(block))
        img, pasts = torch.cat([img, txt], 1), pasts[len(self.transformer_blocks) :]
        for i, block in enumerate(self.single_transformer_blocks):
            img = blocks("single_block", i, block, pasts[i], img=img, vec=vec(block))

        scale, shift = parts_of(self.norm_out)
        out = self.proj_out(modulated_norm(blocks.read(img), shift, scale))
        return self.unpatchified(out, x, "(c ph pw)")

    @property
    def blocks_in_order(self) -> list[nn.Module]:
        """Double, then single blocks."""
        return [*self.transformer_blocks, *self.single_transformer_blocks]

    def pasts(
        self, img: Tensor, y: Tensor, guidance: Tensor | None, run: Run, options: Mapping[str, Any]
    ) -> list[Past]:
        """Keys and values, in each block, of a history's tokens ``b l d`` that see only themselves, at timestep 0."""
        vec = self.activated(torch.zeros(len(img), device=img.device), y, guidance)
        blocks, none, found = Blocks(run, options, self.takes_runs, ("", 0), EVERY), img[:, :0], []
        for block in self.blocks_in_order:
            tokens = {"img": img, "vec": [layer(vec) for layer in block.modulations]}
            if getattr(block, "two_streams", False):
                (img, _), past = blocks.kept(block, **tokens, txt=none)
            else:
                img, past = blocks.kept(block, **tokens)
            found.append(past)
        return found

    def text(
        self,
        context: Tensor,
        mask: Tensor | None,
        timestep: Tensor,
        *,
        image: Tensor | None,
        options: Mapping[str, Any],
        constants: Constants,
    ) -> Tensor:
        """Word tokens ``b l d``, behind those of the start image where the model takes one."""
        run = self.run(options, key_mask(mask, context.shape[1]))
        txt = self.refined(context, mask, timestep, run, constants)
        if image is None or not self.spec.image_dim:
            return txt
        return torch.cat([constants.keep("image", None, (image,), lambda: self.image_projection(image)), txt], 1)

    def rounded(
        self, timestep: Tensor, guidance: Tensor | None, constants: Constants, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor | None, Constants]:
        """Timestep, guidance and the run's levels as the release passes them; see the class."""
        if self.exact:
            return timestep, guidance, constants
        if guidance is not None:
            guidance = guidance.to(torch.bfloat16).to(guidance)
        if dtype == torch.bfloat16:
            timestep, constants = timestep.to(dtype).to(timestep), constants.rounded(dtype)
        return timestep, guidance, constants

    @property
    def modulations(self) -> list[Modulation]:
        """Every layer that depends on nothing but timestep, guidance and pooled text."""
        return [*(layer for block in self.blocks_in_order for layer in block.modulations), self.norm_out]

    def activated(self, timestep: Tensor, y: Tensor, guidance: Tensor | None) -> Tensor:
        """What the modulations take, ``b d``."""
        return F.silu(self.time_text_embed(timestep, y, guidance))

    def refined(self, context: Tensor, mask: Tensor | None, timestep: Tensor, run: Run, constants: Constants) -> Tensor:
        """Word tokens ``b l d``, refined; kept for each of the run's noise levels."""
        level = constants.level(timestep)
        kept: dict[float, Tensor] = constants.keep("words", constants.levels, (context, mask), dict)
        if level in kept:
            return kept[level]
        txt = self.context_embedder(context, timestep, mask, run)
        if level in constants.levels:
            kept[level] = txt
        return txt

    @property
    def patchify(self) -> nn.Module:
        """The base patchify projection."""
        return self.x_embedder.proj

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
