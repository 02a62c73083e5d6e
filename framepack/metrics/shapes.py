"""What a video of the shapes' world shows: colour, area, centre and outline, by simple image measures.

Dims: t frames, h w picture. Backgrounds are grey, so saturation (largest minus smallest channel) finds the shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

FAINT = 0.15  # saturation below this is background and coding noise


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """A video measured frame by frame. `centre` is ``t 2`` (x, y) in pixels, `colour` ``t 3``, others ``t``."""

    area: Tensor
    centre: Tensor
    colour: Tensor


def saturation(frames: Tensor) -> Tensor:
    """frames ``t 3 h w`` in [0, 1] -> ``t h w``."""
    return frames.amax(1) - frames.amin(1)


def track(frames: Tensor) -> Track:
    """Measure frames ``t 3 h w`` in [0, 1].

    The area counts pixels of more than half the shape's own saturation; the centre is weighted by saturation;
    the colour is the mean of the shape's inner pixels. Without a shape the area is 0 and the centre NaN.
    """
    s = saturation(frames)
    peak = s.flatten(1).quantile(0.98, dim=1)
    inside = (s > peak[:, None, None] / 2) & (s > 2 * FAINT)
    weight = (s - FAINT).clamp_min(0) * (peak > 2 * FAINT)[:, None, None]
    total = weight.sum((1, 2))
    y, x = (torch.arange(n, device=s.device) + 0.5 for n in s.shape[1:])
    centre = torch.stack([(weight.sum(1) * x).sum(1), (weight.sum(2) * y).sum(1)], -1) / total[:, None]
    inner = (s > 0.8 * peak[:, None, None]) & inside
    colour = (frames * inner[:, None]).sum((2, 3)) / inner.sum((1, 2)).clamp_min(1)[:, None]
    return Track(area=inside.sum((1, 2)), centre=centre, colour=colour)


def nearest_colour(colour: Tensor, palette: Mapping[str, tuple[float, float, float]]) -> list[str]:
    """Name each colour ``t 3`` after the nearest of the palette."""
    names = list(palette)
    distance = torch.cdist(colour, torch.tensor([palette[n] for n in names]))
    return [names[i] for i in distance.argmin(1).tolist()]


def start_kept(measured: Track, reference: Track, palette: Mapping[str, tuple[float, float, float]]) -> Tensor:
    """Per frame: is the start frame's shape still there, in its colour and with its area within 40 %? ``t``."""
    wanted = nearest_colour(reference.colour[:1], palette)[0]
    same = torch.tensor([name == wanted for name in nearest_colour(measured.colour, palette)])
    ratio = measured.area / reference.area[0].clamp_min(1)
    return same & (ratio > 0.6) & (ratio < 1.4)


def nearest_outline(
    frame: Tensor, distances: Mapping[str, Callable[[Tensor, Tensor, float], Tensor]], angles: int = 30
) -> str:
    """Name the outline in a frame ``3 h w``: the one of equal area that overlaps it most, over all angles.

    `distances` gives for each name the signed distance at x, y to an outline of the area of a circle of the
    given radius.
    """
    s = saturation(frame[None])[0]
    measured = track(frame[None])
    area, (cx, cy) = float(measured.area[0]), measured.centre[0].tolist()
    inside = s > s.flatten().quantile(0.98) / 2
    grid = torch.arange(s.shape[-1]) + 0.5
    turn = torch.arange(angles)[:, None, None] * (2 * math.pi / angles)
    dx, dy = grid[None, None, :] - cx, grid[None, :, None] - cy
    x, y = dx * turn.cos() + dy * turn.sin(), dy * turn.cos() - dx * turn.sin()

    def overlap(distance: Callable[[Tensor, Tensor, float], Tensor]) -> float:
        template = distance(x, y, math.sqrt(area / math.pi)) < 0
        both = (template & inside).sum((1, 2)) / (template | inside).sum((1, 2)).clamp_min(1)
        return float(both.max())

    return max(distances, key=lambda name: overlap(distances[name]))
