"""float8 with scales. With one for each output row, every row uses the format's range, whatever its own size.

Dims: o output rows, i inner channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

DTYPE = torch.float8_e4m3fn
# The largest value of a row stands at half of the format's largest, 448: a floating format loses nothing by that, and
# a LoRA that is written into the row may double it.
TOP = torch.finfo(DTYPE).max / 2
ROWS = 1024  # rows that are cast at a time, so that a wide matrix needs no wide copy
SCALE = "scale_rows"  # name of the scales beside a layer's weight


def to_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight ``o i`` -> float8 ``o i`` and its scales, float32 ``o 1``: their product is the weight again."""
    out, scales = torch.empty_like(weight, dtype=DTYPE), weight.new_empty(len(weight), 1, dtype=torch.float32)
    for rows, scale, cast in zip(weight.split(ROWS), scales.split(ROWS), out.split(ROWS), strict=True):
        rows = rows.float()
        scale.copy_((rows.abs().amax(1, keepdim=True) / TOP).bfloat16())  # exact where a layer computes in bfloat16
        scale[scale == 0] = 1
        cast.copy_(rows / scale)
    return out, scales


def from_rows(weight: Tensor, scales: Tensor) -> Tensor:
    """float8 ``o ...`` and its scales, one for each row or one for all, to float32."""
    return weight.float() * as_rows(scales.to(weight.device)).view(-1, *[1] * (weight.ndim - 1))


def as_rows(scales: Tensor) -> Tensor:
    """Scales of any shape as float32, ``o 1`` or ``1 1``."""
    return scales.float().reshape(-1, 1)
