"""What every backbone shares: packed tokens and their phases, and the host's hooks around blocks.

Dims: b batch, c channels, t h w latent grid, l tokens, d width. Picture tokens stand in the order history, section.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import LatentSizeError
from ..nn.attention import Attention
from ..nn.rope import Phases, Rope, join
from ..packing.embedding import PackedEmbedding, pad_to, phases_of
from ..packing.history import ContextGroup
from ..units import BASE, Kernel
from .memo import NOTHING_KEPT, Constants

Run = Callable[[dict[str, Any]], dict[str, Any]]  # a block as the host's patches see it
EVERY = slice(None)


class PackedSpec(Protocol):
    """What packing needs to know of a backbone."""

    in_channels: int
    kernels: tuple[Kernel, ...]

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
    def patchify(self) -> nn.Module:
        """The base patchify projection, a convolution through k1."""
        raise NotImplementedError

    def pack(
        self,
        x: Tensor,
        positions: Sequence[int] | None,
        history: Sequence[ContextGroup],
        constants: Constants = NOTHING_KEPT,
    ) -> tuple[Tensor, Phases]:
        """Tokens ``b l d`` and phases of history and section; x ``b c t h w``, positions ``t`` latent frame indices.

        Raises LatentSizeError where positions and frames disagree.
        """
        num_lat_frames = x.shape[2]
        positions = range(num_lat_frames) if positions is None else positions
        if len(positions) != num_lat_frames:
            raise LatentSizeError(f"{len(positions)} positions came for a section of {num_lat_frames} latent frames")
        x = pad_to(x, (BASE.t, BASE.h, BASE.w))
        section = self.patchify(x).flatten(2).transpose(1, 2)  # b l d
        shape = tuple((g.kernel, g.positions, g.tail, g.latents.shape[2:]) for g in history)
        before = constants.keep(
            "history", shape, [g.latents for g in history], lambda: list(map(self.clean_x_embedder.tokens, history)), 2
        )
        place = (tuple(positions), x.shape[3:], shape, x.device)
        phases = constants.keep("phases", place, (), lambda: self.phases(x, positions, history))
        return torch.cat([*before, section], 1), phases

    def phases(self, x: Tensor, positions: Sequence[int], history: Sequence[ContextGroup]) -> Phases:
        """Phases of the tokens that `pack` makes of a history and a section ``b c t h w``, padded to whole tokens."""
        height, width = x.shape[3] // BASE.h, x.shape[4] // BASE.w
        here = self.spec.rope.grid(torch.tensor(positions, device=x.device), height, width)
        return join([*(phases_of(self.spec.rope, group) for group in history), here])

    def compile_blocks(self, **options: Any) -> None:
        """Compile every block in place, for any number of tokens; options are those of torch.compile."""
        for name in self.BLOCKS:
            for block in getattr(self, name):
                block.compile(dynamic=True, **options)

    def attend(self, mask: Tensor | None, options: Mapping[str, Any]) -> Callable[..., Tensor]:
        """Attention over q, k, v ``b n l e``, with a key mask and the host's options."""
        return partial(self.attention, mask=mask, transformer_options=options)


def replaced(options: Mapping[str, Any], kind: str, index: int, run: Run) -> Run:
    """A block's run, or what the host's patches put in its place."""
    replacement = options.get("patches_replace", {}).get("dit", {}).get((kind, index))
    if replacement is None:
        return run
    return lambda args: replacement(args, {"original_block": run, "transformer_options": options})


def read_of(options: Mapping[str, Any], kind: str, index: int, section: slice) -> slice:
    """The tokens that the last block makes: the section's, but every token where a patch of the host stands for it."""
    return EVERY if (kind, index) in options.get("patches_replace", {}).get("dit", {}) else section


def section_grid(x: Tensor) -> tuple[int, int, int]:
    """Tokens of a section ``b c t h w`` along time, height and width."""
    t, h, w = x.shape[2:]
    return t, -(-h // BASE.h), -(-w // BASE.w)
