"""Faults that a history has in generation, put into the clips that training shows as history.

Noise, softness and wrong saturation stand for what sections before left; blank context for what is not made yet. Each
is a switch of the configuration. Dims: c channels, t h w latent grid.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..packing.codebook import assign
from ..packing.history import ContextGroup
from .config import History


def corrupted(clip: Tensor, grey: Tensor | None, how: History, noise: torch.Generator) -> Tensor:
    """A clip ``c t h w`` as history: each fault as strong as its range draws; `grey` is the clip without colours."""
    rng = random.Random(int(torch.randint(2**62, (), generator=noise)))
    if rng.random() >= how.corrupted:
        return clip
    seen = clip
    if how.saturates:
        assert grey is not None, "saturation needs the clip in grey"
        seen = saturated(seen, grey, rng.uniform(*how.saturation))
    if how.downsample != (1.0, 1.0):
        seen = softened(seen, rng.uniform(*how.downsample))
    if how.noise != (0.0, 0.0):
        level = rng.uniform(*how.noise)
        seen = (1 - level) * seen + level * torch.randn(clip.shape, generator=noise)
    return seen


def saturated(clip: Tensor, grey: Tensor, amount: float) -> Tensor:
    """Latents with so much of their colour: 0 is the grey clip, 1 the clip; between and beyond along the line."""
    return grey + amount * (clip - grey)


def softened(clip: Tensor, factor: float) -> Tensor:
    """Each frame of ``c t h w`` made smaller by a factor, and large again."""
    frames, (height, width) = clip.transpose(0, 1), clip.shape[2:]
    size = (max(round(height * factor), 1), max(round(width * factor), 1))
    small = F.interpolate(frames, size=size, mode="bilinear", antialias=True, align_corners=False)
    large = F.interpolate(small, size=(height, width), mode="bilinear", align_corners=False)
    return large.transpose(0, 1)


def discretized(latents: Tensor, centroids: Tensor) -> Tensor:
    """Each pixel of latents ``b c t h w`` as its nearest centroid ``k c`` (paper v3, equation 6)."""
    pixels = latents.movedim(1, -1)
    nearest = assign(pixels.flatten(0, -2), centroids)
    return centroids[nearest].view_as(pixels).movedim(-1, 1)


def dropped(history: Sequence[ContextGroup], chance: float, noise: torch.Generator) -> list[ContextGroup]:
    """A history in which each group is blank, as before anything is made, by a chance."""
    if not chance:
        return list(history)
    blank = (torch.rand(len(history), generator=noise) < chance).tolist()
    return [
        replace(group, latents=torch.zeros_like(group.latents)) if gone else group
        for group, gone in zip(history, blank, strict=True)
    ]
