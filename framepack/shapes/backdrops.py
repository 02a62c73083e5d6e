"""Backgrounds of the wide world: two tints with a gradient between them, a texture upon it, and a mark.

Dims: b scenes, h w picture. Colours are red, green, blue in [0, 1]; lengths are pixels, angles radians.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..training.resident import placed

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
    device = torch.device(device)

    def each(values: list[float]) -> Tensor:
        return placed(torch.tensor(values), device).view(-1, 1, 1)

    tints = placed(torch.tensor([one.tints for one in backdrops]), device)  # b 2 3
    angle = each([one.angle for one in backdrops])
    place = torch.arange(size, device=device) + 0.5
    x, y = place, place[:, None]
    along = (x / size - 0.5) * angle.cos() + (y / size - 0.5) * angle.sin()  # b h w
    along = (along / (angle.cos().abs() + angle.sin().abs()) + 0.5)[:, None]
    first, last = tints[:, 0, :, None, None], tints[:, 1, :, None, None]
    world = 64 / size  # pixels of the world's own size
    added = _textures(backdrops, x * world, y * world, each) + _marks(backdrops, x * world, y * world, each)
    return (first + (last - first) * along + added[:, None]).clamp(DARKEST, LIGHTEST)


Each = Callable[[list[float]], Tensor]


def _textures(backdrops: Sequence[Backdrop], x: Tensor, y: Tensor, each: Each) -> Tensor:
    """What textures add, ``b h w``. Noise is drawn on the CPU, so that it is the same on every device."""
    turn, scale = each([one.turn for one in backdrops]), each([one.scale for one in backdrops])
    u, v = (x * turn.cos() + y * turn.sin()) / scale, (y * turn.cos() - x * turn.sin()) / scale
    checks = torch.tanh(3 * (math.pi * u).sin() * (math.pi * v).sin())
    wave, check = (each([float(one.texture == kind) for one in backdrops]) for kind in ("stripes", "checks"))
    field, size = wave * (2 * math.pi * u).sin() + check * checks, len(x)
    noisy = [i for i, one in enumerate(backdrops) if one.texture in ("cloud", "grain")]
    if noisy:
        drawn = placed(torch.stack([_noisy(backdrops[i], size) for i in noisy]), x.device)
        field = field.index_add(0, placed(torch.tensor(noisy), x.device), drawn)
    return each([one.strength for one in backdrops]) * field


def _marks(backdrops: Sequence[Backdrop], x: Tensor, y: Tensor, each: Each) -> Tensor:
    """What marks add, ``b h w``."""
    marks = [one.mark or Mark(centre=(0.0, 0.0), half=0.0, lighter=0.0) for one in backdrops]
    across, down = each([mark.centre[0] for mark in marks]), each([mark.centre[1] for mark in marks])
    far = torch.maximum((x - across).abs(), (y - down).abs())
    line = (0.5 + FRAME / 2 - (far - each([mark.half for mark in marks])).abs()).clamp(0, 1)
    return each([mark.lighter for mark in marks]) * line


def _noisy(backdrop: Backdrop, size: int) -> Tensor:
    """A cloud or grain, ``h w``."""
    if backdrop.texture == "grain":
        return _noise(backdrop, size, 0.25)
    return (_noise(backdrop, size, 1.0) + 0.5 * _noise(backdrop, size, 0.5)) / 1.2


def _noise(backdrop: Backdrop, size: int, finer: float) -> Tensor:
    """Smooth noise ``h w`` of about unit deviation, whose grain is `scale` times `finer` pixels."""
    source = torch.Generator().manual_seed(backdrop.seed * 2 + (finer < 1))
    side = max(round(64 / max(backdrop.scale * finer, 1.5)), 2)
    grid = torch.randn(1, 1, side, side, generator=source).clamp(-2, 2)
    return F.interpolate(grid, size=(size, size), mode="bicubic", align_corners=False)[0, 0]
