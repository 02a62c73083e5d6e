"""What every backbone shares: packed tokens with their phases, and how its blocks are called.

Dims: b batch, c channels, t h w latent grid, l tokens, d width, n heads, e head dim. Picture tokens stand in the order
history, section.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import ceil, prod
from typing import Any, NamedTuple, Protocol

import torch
from einops import rearrange
from torch import Tensor, nn

from ..errors import FramePackError, LatentSizeError
from ..nn.attention import Attention
from ..nn.layers import Modulation
from ..nn.ranks import ALONE, Ranks, Shares
from ..nn.rope import Phases, Rope
from ..nn.rows import takes_runs
from ..packing.embedding import PackedEmbedding, pad_to, phases_of, tokens_of
from ..packing.history import ContextGroup
from ..units import BASE, Geometry, Kernel
from .memo import NOTHING_KEPT, Constants
from .running import Run


def check_causal(dit: nn.Module) -> None:
    """Raises FramePackError for a backbone whose history cannot be causal."""
    if not hasattr(dit, "pasts"):
        raise FramePackError(
            f"Causal history is not available for {type(dit).__name__}. Turn it off, or use HunyuanVideo or Wan."
        )


class Pictured(NamedTuple):
    """Picture tokens ``b l d`` as the blocks take them: phases, how processes share them out, the section's rows.

    `pasts` are the keys and values of a causal history in each block, else None.
    """

    img: Tensor
    phases: Phases
    shares: Shares
    section: slice
    pasts: Sequence[Any]


class PackedSpec(Protocol):
    """What packing needs to know of a backbone."""

    in_channels: int
    kernels: tuple[Kernel, ...]

    @property
    def geometry(self) -> Geometry:
        """How its latents lie in pixels, frames and tokens."""
        ...

    @property
    def width(self) -> int:
        """Channels of the residual stream."""
        ...

    @property
    def rope(self) -> Rope:
        """The rotary embedding."""
        ...


class PackedDiT(nn.Module):
    """A DiT over a packed history and a section. A backbone adds `patchify`, its blocks and `forward`."""

    BLOCKS: tuple[str, ...]  # the names of its lists of blocks
    clean_x_embedder: PackedEmbedding

    def __init__(self, spec: PackedSpec, attention: Attention):
        super().__init__()
        self.spec, self.attention = spec, attention

    @property
    def packing_layers(self) -> Mapping[Kernel, nn.Module]:
        """The projections of history, by kernel."""
        return self.clean_x_embedder.layers

    @property
    def patchify(self) -> nn.Module:
        """The base patchify projection, a convolution through k1."""
        raise NotImplementedError

    @property
    def modulations(self) -> Sequence[Modulation]:
        """The layers whose outputs are computed once for a prompt; none, unless a backbone has such."""
        return ()

    def takes_runs(self, block: nn.Module) -> bool:
        """May a block's layers be called on runs of rows? A host whose layers move weights in each call says no."""
        return takes_runs(block)

    @property
    def ranks(self) -> Ranks:
        """The processes that share the tokens out, by this model's attention; mostly there is but one."""
        return getattr(self.attention, "ranks", ALONE)

    def pack(
        self,
        x: Tensor,
        positions: Sequence[int] | None,
        history: Sequence[ContextGroup],
        constants: Constants = NOTHING_KEPT,
    ) -> tuple[Tensor, Phases]:
        """Tokens ``b l d`` and phases of history and section; x ``b c t h w``, positions ``t`` latent frame indices.

        Where several processes share a section, these are the rows of each that this one holds.
        Raises LatentSizeError where positions and frames disagree.
        """
        num_lat_frames = x.shape[2]
        positions = range(num_lat_frames) if positions is None else positions
        if len(positions) != num_lat_frames:
            raise LatentSizeError(
                f"A section needs one position per latent frame; got {len(positions)} positions for "
                f"{num_lat_frames} latent frames."
            )
        x = pad_to(x, self.spec.geometry.latents(BASE))
        section = self.ranks.own(self.patchify(x).flatten(2).transpose(1, 2))  # b l d
        shape = self.past_key(history)
        before = constants.keep("history", shape, [g.latents for g in history], lambda: self.packed(history), 2)
        place = (tuple(positions), x.shape[3:], shape, x.device)
        phases = constants.keep("phases", place, (), lambda: self.phases(x, positions, history).to(x.device))
        return torch.cat([*before, section], 1), phases

    def past_key(self, history: Sequence[ContextGroup]) -> tuple[Any, ...]:
        """What determines the tokens and phases of a history beside its latents."""
        groups = tuple((g.kernel, g.positions, g.tail, g.latents.shape[2:]) for g in history)
        return groups, self.ranks.rank, self.ranks.world

    def packed(self, history: Sequence[ContextGroup]) -> list[Tensor]:
        """The tokens of the groups, ``b l d``; of several processes each keeps its own rows."""
        tokens = [tokens_of(group, self.packing_layers, self.spec.geometry) for group in history]
        return tokens if self.ranks.world == 1 or not tokens else [self.ranks.own(torch.cat(tokens, 1))]

    def phases(self, x: Tensor, positions: Sequence[int], history: Sequence[ContextGroup]) -> Phases:
        """Phases of the tokens that `pack` makes of a history and a section ``b c t h w``, padded to whole tokens."""
        rope, patch = self.spec.rope, self.spec.geometry.patch
        here = rope.grid(torch.tensor(positions), x.shape[3] // patch, x.shape[4] // patch)
        before = [phases_of(rope, group, patch) for group in history]
        if self.ranks.world > 1:
            before, here = [self.ranks.own(torch.cat(before, 1))] if before else [], self.ranks.own(here)
        return torch.cat([*before, here], 1)

    def pictured(
        self,
        x: Tensor,
        positions: Sequence[int] | None,
        history: Sequence[ContextGroup],
        options: Mapping[str, Any],
        constants: Constants,
        *,
        num_text: int = 0,
        causal: tuple[Any, ...] | None = None,
    ) -> Pictured:
        """What `pack` makes, as the blocks take it beside `num_text` text tokens. Unpack it: it holds the tokens.

        With `causal`, what the history is conditioned on, the history sees only itself: the tokens are the section's
        alone, and the pasts are the same in every step.
        """
        img, phases = self.pack(x, positions, history, constants)
        shares, section = self.shares(x, history, num_text), self.section(img, x)
        if causal is None or not shares.segments[0]:
            return Pictured(img, phases, shares, section, [None] * sum(len(getattr(self, n)) for n in self.BLOCKS))
        before, start = img[:, : section.start], section.start
        run = self.run(options, phases=phases[:, :start], shares=shares.first)
        place, seen = self.past_key(history), (*(group.latents for group in history), *causal)
        pasts = constants.keep("past", place, seen, lambda: self.pasts(before, *causal, run, options))
        return Pictured(img[:, start:], phases[:, start:], shares.rest, slice(0, img.shape[1] - start), pasts)

    def section(self, img: Tensor, x: Tensor) -> slice:
        """The tokens of a section ``b c t h w`` among the picture tokens ``b l d``: the last ones."""
        return slice(img.shape[1] - self.ranks.count(prod(self.grid(x))), img.shape[1])

    def shares(self, x: Tensor, history: Sequence[ContextGroup], num_text: int = 0) -> Shares:
        """How the tokens of history, section ``b c t h w`` and text are shared out over processes."""
        section = prod(self.grid(x))
        before = sum(group.num_tokens(self.spec.geometry.patch) for group in history)
        return Shares(ranks=self.ranks, segments=(before, section, num_text), read=section)

    def unpatchified(self, tokens: Tensor, x: Tensor, layout: str) -> Tensor:
        """The section's tokens ``b l p*p*c`` as latents of the size of x ``b c t h w``.

        `layout` is the order of a token's values in einops letters, such as ``(c ph pw)``.
        """
        (t, h, w), patch = self.grid(x), self.spec.geometry.patch
        tokens = self.ranks.whole(tokens, t * h * w)
        pattern = f"b (t h w) {layout} -> b c t (h ph) (w pw)"
        return rearrange(tokens, pattern, t=t, h=h, w=w, ph=patch, pw=patch)[..., : x.shape[3], : x.shape[4]]

    def grid(self, x: Tensor) -> tuple[int, int, int]:
        """Tokens of a section ``b c t h w`` along time, height and width."""
        (t, h, w), patch = x.shape[2:], self.spec.geometry.patch
        return t, ceil(h / patch), ceil(w / patch)

    def compile_blocks(self, **options: Any) -> None:
        """Compile every block in place, for any number of tokens; options are those of torch.compile."""
        for name in self.BLOCKS:
            for block in getattr(self, name):
                block.compile(dynamic=True, **options)

    def run(
        self,
        options: Mapping[str, Any],
        mask: Tensor | None = None,
        phases: Phases | None = None,
        shares: Shares | None = None,
    ) -> Run:
        """What blocks are given: this model's attention with a key mask and the host's options, and phases.

        Blocks whose tokens several processes share out, by `shares`, attend across them.
        """
        attend = partial(self.attention, mask=mask, transformer_options=options)
        if shares is None or self.ranks.world == 1:
            return Run(attend, phases)
        mask = None if mask is None else shares.in_order(mask)
        across = partial(self.attention.across, shares=shares, mask=mask, transformer_options=options)
        return Run(attend, phases, across=across)
