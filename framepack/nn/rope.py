"""Rotary position phases at any set of positions, average-pooled to a kernel (paper section 3.1).

Dims: l tokens, n heads, e head dim. Phases are a pair (cosine, sine), each ``l e/2``; pairs are interleaved.
Each axis turns its own share of the pairs by its own coordinate, so the mean over a kernel's cell is the mean along
each axis, and three short tables make the whole grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Phases = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """Channels per axis (time, height, width), which add up to the head dim, and the base of the frequencies."""

    axes: tuple[int, int, int]
    theta: float = 256.0

    def grid(self, positions: Tensor, height: int, width: int, cell: tuple[int, int, int] = (1, 1, 1)) -> Phases:
        """Phases of ``t h w`` tokens, flattened.

        `positions` are latent frame indices ``t``; height and width count k1 tokens; `cell` says how many of
        each are pooled into one token, the last repeated where they do not divide.
        """
        places = [positions.double(), *(torch.arange(n, device=positions.device).double() for n in (height, width))]
        axes = [self._axis(p, dim, k) for p, dim, k in zip(places, self.axes, cell, strict=True)]
        t, h, w = (cos.shape[0] for cos, _ in axes)
        shapes = ((t, 1, 1), (1, h, 1), (1, 1, w))
        cos, sin = (
            torch.cat([a[i].view(*s, -1).expand(t, h, w, -1) for a, s in zip(axes, shapes, strict=True)], -1)
            for i in (0, 1)
        )
        return cos.flatten(0, 2), sin.flatten(0, 2)

    def _axis(self, positions: Tensor, dim: int, cell: int) -> Phases:
        frequency = self.theta ** -(torch.arange(0, dim, 2, device=positions.device).double() / dim)
        short = -len(positions) % cell
        padded = torch.cat([positions, positions[-1:].expand(short)])
        phase = (padded[:, None] * frequency).view(-1, cell, dim // 2)
        return phase.cos().mean(1).float(), phase.sin().mean(1).float()


def join(phases: list[Phases]) -> Phases:
    """Phases of token groups one after another."""
    cos, sin = zip(*phases, strict=True)
    return torch.cat(cos), torch.cat(sin)


def part(phases: Phases, tokens: slice) -> Phases:
    """Phases of some of the tokens."""
    cos, sin = phases
    return cos[tokens], sin[tokens]


def rotate(x: Tensor, phases: Phases) -> Tensor:
    """Turn the interleaved pairs of the first tokens of x ``b l n e``, as many as there are phases, in float32.

    Returns x's dtype. Without autograd a float32 x is turned in place, so it must be the caller's own.
    """
    cos, sin = (p[:, None, :].to(x.device) for p in phases)
    num = cos.shape[0]
    if torch.compiler.is_compiling():  # which fuses the plain form and knows no complex numbers
        turned = _turned(x[:, :num], cos, sin)
    else:
        turned = _turned_as_complex(x[:, :num], cos, sin)
    return turned if num == x.shape[1] else _joined(x, turned)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The plain form."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], -1).flatten(-2).to(x.dtype)


def _turned_as_complex(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """A pair is a complex number, and turning it one product: a single pass where the plain form makes five."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    own = x.dtype == torch.float32 and not torch.is_grad_enabled()
    turned = torch.mul(pairs, torch.complex(cos, sin), out=pairs if own else None)
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)


def _joined(x: Tensor, turned: Tensor) -> Tensor:
    """The turned first tokens of x and its other ones; in place they are together already."""
    if not torch.compiler.is_compiling() and turned.data_ptr() == x.data_ptr():
        return x
    return torch.cat([turned, x[:, turned.shape[1] :]], 1)
