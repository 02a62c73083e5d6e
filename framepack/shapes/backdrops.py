"""Backgrounds of the wide world: two tints with a gradient between them, a texture upon it, and a mark.

Dims: b scenes, h w picture. Colours are red, green, blue in [0, 1]; lengths are pixels, angles radians.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Rgb = tuple[float, float, float]
Texture = Literal["", "cloud", "grain", "stripes", "checks"]
DARKEST, LIGHTEST = 0.02, 0.98
FRAME = 2.5  # width of a mark's lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A square frame around a place, that much lighter or darker than the background."""

    centre: tuple[float, float]
    half: float
    lighter: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Backdrop:
    """A background: tints at both ends of a gradient along `angle`, and a texture that is so strong.

    `scale` is the texture's grain or period, `turn` the angle of stripes and checks, `seed` draws clouds and grain.
    """

    tints: tuple[Rgb, Rgb]
    angle: float = 0.0
    texture: Texture = ""
    strength: float = 0.0
    scale: float = 8.0
    turn: float = 0.0
    seed: int = 0
    mark: Mark | None = None


def draw_backdrops(backdrops: Sequence[Backdrop], size: int, device: torch.device | str = "cpu") -> Tensor:
    """Backgrounds ``b 3 h w`` in [0, 1], of a side of `size` pixels."""
    tints = torch.tensor([each.tints for each in backdrops], device=device)  # b 2 3
    angle = torch.tensor([each.angle for each in backdrops], device=device).view(-1, 1, 1)
    place = (torch.arange(size, device=device) + 0.5) / size - 0.5
    along = place * angle.cos() + place[:, None] * angle.sin()  # b h w
    along = (along / (angle.cos().abs() + angle.sin().abs()) + 0.5)[:, None]
    first, last = tints[:, 0, :, None, None], tints[:, 1, :, None, None]
    textures = torch.stack([_texture(each, size) for each in backdrops]).to(device)
    return (first + (last - first) * along + textures[:, None]).clamp(DARKEST, LIGHTEST)


def _texture(backdrop: Backdrop, size: int) -> Tensor:
    """What a texture and a mark add, ``h w``, drawn on the CPU so that it is the same on every device."""
    place = (torch.arange(size) + 0.5) * (64 / size)  # pixels of the world's own size
    y, x = place[:, None].expand(size, size), place.expand(size, size)
    cos, sin = math.cos(backdrop.turn), math.sin(backdrop.turn)
    u, v = x * cos + y * sin, y * cos - x * sin
    match backdrop.texture:
        case "cloud":
            field = (_noise(backdrop, size, 1.0) + 0.5 * _noise(backdrop, size, 0.5)) / 1.2
        case "grain":
            field = _noise(backdrop, size, 0.25)
        case "stripes":
            field = (2 * math.pi * u / backdrop.scale).sin()
        case "checks":
            field = torch.tanh(3 * (math.pi * u / backdrop.scale).sin() * (math.pi * v / backdrop.scale).sin())
        case _:
            field = torch.zeros(size, size)
    out = backdrop.strength * field
    if mark := backdrop.mark:
        far = torch.maximum((x - mark.centre[0]).abs(), (y - mark.centre[1]).abs())
        out = out + mark.lighter * (0.5 + FRAME / 2 - (far - mark.half).abs()).clamp(0, 1)
    return out


def _noise(backdrop: Backdrop, size: int, finer: float) -> Tensor:
    """Smooth noise ``h w`` of about unit deviation, whose grain is `scale` times `finer` pixels."""
    source = torch.Generator().manual_seed(backdrop.seed * 2 + (finer < 1))
    side = max(round(64 / max(backdrop.scale * finer, 1.5)), 2)
    grid = torch.randn(1, 1, side, side, generator=source).clamp(-2, 2)
    return F.interpolate(grid, size=(size, size), mode="bicubic", align_corners=False)[0, 0]
