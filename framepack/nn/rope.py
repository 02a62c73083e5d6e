"""Rotary position phases at any set of positions, average-pooled to a kernel (paper section 3.1).

Dims: b batch, l tokens, n heads, e head dim; t h w grid of tokens. Each axis turns its own share of the interleaved
pairs by its own coordinate. So the mean over a kernel's cell is the mean along each axis, and three short tables make
the whole grid. Tables are made on the CPU in float64, which some devices lack.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Phases = Tensor
"""``1 l 2 e``: the cosine of each channel's pair, and the signed sine that its partner in the pair is multiplied by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """Channels per axis (time, height, width), which add up to the head dim, and the base of the frequencies."""

    axes: tuple[int, int, int]
    theta: float = 256.0

    def grid(self, positions: Tensor, height: int, width: int, cell: tuple[int, int, int] = (1, 1, 1)) -> Phases:
        """Phases of ``t h w`` tokens, flattened, in float32 on the CPU.

        `positions` are latent frame indices ``t``; height and width count k1 tokens; `cell` says how many of
        each are pooled into one token, the last repeated where they do not divide.
        """
        places = [positions, torch.arange(height), torch.arange(width)]
        axes = [self._axis(p, dim, k) for p, dim, k in zip(places, self.axes, cell, strict=True)]
        t, h, w = (len(axis) for axis in axes)
        shapes = ((t, 1, 1), (1, h, 1), (1, 1, w))
        whole = [a.view(*s, 2, -1).expand(t, h, w, 2, -1) for a, s in zip(axes, shapes, strict=True)]
        return torch.cat(whole, -1).view(1, t * h * w, 2, -1)

    def _axis(self, positions: Tensor, dim: int, cell: int) -> Tensor:
        """An axis' part of the phases, ``positions/cell 2 dim``."""
        positions = positions.double()
        frequency = self.theta ** -(torch.arange(0, dim, 2).double() / dim)
        short = -len(positions) % cell
        padded = torch.cat([positions, positions[-1:].expand(short)])
        phase = (padded[:, None] * frequency).view(-1, cell, dim // 2)
        cos, sin = phase.cos().mean(1), phase.sin().mean(1)
        return torch.stack([torch.stack([cos, cos], -1), torch.stack([-sin, sin], -1)], 1).flatten(2).float()


def unturned(num_tokens: int, like: Phases) -> Phases:
    """Phases ``1 l 2 e`` of tokens that keep their values, such as words."""
    shape = (1, num_tokens, like.shape[-1])
    return torch.stack([like.new_ones(shape), like.new_zeros(shape)], 2)


def rotate(x: Tensor, phases: Phases) -> Tensor:
    """Turn the interleaved pairs of x ``b l n e`` by the phases ``1 l 2 e`` in float32; returns x's dtype."""
    cos, sin = phases.unsqueeze(3).unbind(2)  # 1 l 1 e
    partner = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return torch.addcmul(x * cos, partner, sin).to(x.dtype)
