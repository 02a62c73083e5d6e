"""Small pieces that backbones share. Parameters live in leaf modules of the injected operations.

Dims: b batch, l tokens, d width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-6

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Factory:
    """Makes leaf layers of the host's operations (or torch.nn) in one dtype on one device."""

    operations: Any = nn
    dtype: torch.dtype | None = None
    device: torch.device | str | None = None

    def linear(self, inner: int, outer: int) -> nn.Module:
        """A linear layer with bias."""
        return self.operations.Linear(inner, outer, dtype=self.dtype, device=self.device)

    def conv3d(self, inner: int, outer: int, kernel: tuple[int, int, int]) -> nn.Module:
        """A patchify projection: a convolution whose stride is its kernel."""
        return self.operations.Conv3d(
            inner, outer, kernel_size=kernel, stride=kernel, dtype=self.dtype, device=self.device
        )

    def layer_norm(self, width: int, eps: float = NORM_EPS) -> nn.Module:
        """Layer norm with weight and bias."""
        return self.operations.LayerNorm(width, eps=eps, dtype=self.dtype, device=self.device)

    def rms_norm(self, width: int, eps: float = NORM_EPS) -> nn.Module:
        """RMS norm with weight."""
        return self.operations.RMSNorm(width, eps=eps, dtype=self.dtype, device=self.device)

    def parameter(self, *shape: int) -> nn.Parameter:
        """A tensor that a module itself holds. Offloading skips it; the module moves and casts it in its forward."""
        return nn.Parameter(torch.zeros(shape, dtype=self.dtype, device=self.device))


@cache
def _frequencies(count: int) -> Tensor:
    """From 1 down to 1/10000. Held for good, since a GPU may read them after the call that sends them."""
    with torch.inference_mode(False):
        return torch.exp(-math.log(10_000) / count * torch.arange(count, dtype=torch.float32, device="cpu"))


def sinusoid(values: Tensor, channels: int = 256) -> Tensor:
    """values ``b`` -> ``b channels``: cosines, then sines, of frequencies from 1 down to 1/10000.

    The frequencies are the CPU's on every device: one rounding of theirs is 1e-3 of an angle where a value is 10,000.
    """
    frequency = _frequencies(channels // 2)
    frequency = frequency.to(values.device, non_blocking=values.is_cuda)  # else the CPU waits for the GPU
    angle = values.float()[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], -1)


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU in its tanh form."""
    return F.gelu(x, approximate="tanh")


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """``layer_norm(x) * (1 + scale) + shift``; x ``b l d``, shift and scale ``b d``."""
    return torch.addcmul(shift[:, None], F.layer_norm(x, x.shape[-1:], eps=NORM_EPS), 1 + scale[:, None])


def gated_sum(x: Tensor, gate: Tensor, y: Tensor) -> Tensor:
    """``x + gate * y``; x and y ``b l d``, gate ``b d``."""
    return torch.addcmul(x, gate[:, None], y)


class Embedder(nn.Module):
    """Two linear layers with an activation between: timestep, guidance or text to the width."""

    def __init__(self, make: Factory, inner: int, width: int, activation: Activation = F.silu):
        super().__init__()
        self.activation = activation
        self.linear_1 = make.linear(inner, width)
        self.linear_2 = make.linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x ``... inner`` -> ``... d``."""
        return self.linear_2(self.activation(self.linear_1(x)))


class Modulation(nn.Module):
    """A linear layer that turns the conditioning into shifts, scales and gates."""

    def __init__(self, make: Factory, width: int, parts: int):
        super().__init__()
        self.parts = parts
        self.linear = make.linear(width, parts * width)

    def forward(self, activated: Tensor) -> tuple[Tensor, ...]:
        """SiLU of the conditioning ``b d`` -> so many parts, each ``b d``."""
        return self.linear(activated).chunk(self.parts, -1)


class _Projected(nn.Module):
    """Holds a linear under the name `proj`, as checkpoints do."""

    def __init__(self, make: Factory, inner: int, outer: int):
        super().__init__()
        self.proj = make.linear(inner, outer)


class FeedForward(nn.Module):
    """Linear, activation, linear, under the names of checkpoints (net.0.proj, net.2)."""

    def __init__(
        self, make: Factory, width: int, inner: int, outer: int | None = None, *, activation: Activation = gelu_tanh
    ):
        super().__init__()
        self.activation = activation
        self.net = nn.ModuleList([_Projected(make, width, inner), nn.Identity(), make.linear(inner, outer or width)])

    def forward(self, x: Tensor) -> Tensor:
        """x ``b l width`` -> ``b l outer``."""
        return self.net[2](self.activation(self.net[0].proj(x)))
