"""The packed embedding: context groups to tokens and phases, one projection per kernel.

Dims: b batch, c channels, n frames of a group, h w latent grid, l tokens, d width.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..nn.layers import Factory
from ..nn.rope import Phases, Rope
from ..schedule.tails import tail_of
from ..units import PATCH, RELEASED, Geometry, Kernel
from .history import ContextGroup
from .kernels import LAYER_NAMES, interpolated, route


def pad_to(x: Tensor, unit: tuple[int, int, int]) -> Tensor:
    """Repeat the last frames, rows and columns of x ``b c n h w`` up to multiples of the unit."""
    t, h, w = (-size % k for size, k in zip(x.shape[2:], unit, strict=True))
    return F.pad(x, (0, w, 0, h, 0, t), mode="replicate") if t or h or w else x


def pool(x: Tensor, factor: tuple[int, int, int]) -> Tensor:
    """Average-pool x ``b c n h w``, padded to whole cells."""
    return x if factor == (1, 1, 1) else F.avg_pool3d(pad_to(x, factor), factor)


class PackedEmbedding(nn.Module):
    """Projections by kernel, named as in checkpoints (proj, proj_2x, proj_4x, proj_8x)."""

    def __init__(
        self,
        make: Factory,
        channels: int,
        width: int,
        kernels: tuple[Kernel, ...],
        *,
        geometry: Geometry = RELEASED,
    ):
        super().__init__()
        self.kernels = kernels
        for kernel in kernels:
            self.add_module(LAYER_NAMES[kernel], make.conv3d(channels, width, geometry.latents(kernel)))

    @torch.no_grad()
    def init_from(self, base: nn.Module) -> None:
        """Start every layer by interpolation from the base patchify projection (paper section 3.1)."""
        for kernel, layer in self.layers.items():
            layer.weight.copy_(interpolated(base.weight, kernel))
            layer.bias.copy_(base.bias)

    @property
    def layers(self) -> dict[Kernel, nn.Module]:
        """The projections, by kernel."""
        return {kernel: getattr(self, LAYER_NAMES[kernel]) for kernel in self.kernels}


def tokens_of(group: ContextGroup, layers: Mapping[Kernel, nn.Module], geometry: Geometry = RELEASED) -> Tensor:
    """The group's tokens, ``b l d``, in order of time, height, width, through the projection of its kernel."""
    tail, kernel = tail_of(group.tail), group.kernel
    side = tail.pool(geometry.patch)
    x = pool(tail.gather(group.latents), (1, side, side))
    own, before = route(kernel, layers)
    x = pool(pad_to(x, geometry.latents(kernel)), before)
    return rearrange(layers[own](x), "b d t h w -> b (t h w) d")


def phases_of(rope: Rope, group: ContextGroup, patch: int = PATCH) -> Phases:
    """The group's phases on the CPU, pooled as its latents are; `patch` is a patch's side in latents."""
    height, width = (ceil(n / patch) for n in group.latents.shape[3:])
    cell = tail_of(group.tail).cell(group.kernel, len(group.positions), patch)
    return rope.grid(torch.tensor(group.positions), height, width, cell)
