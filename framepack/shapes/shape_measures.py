"""What a video of the shapes' world shows: colour, area, centre and outline, by simple image measures.

Dims: t frames, h w picture. Backgrounds are grey, so saturation (largest minus smallest channel) finds the shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..metrics.frames import Frame
from ..metrics.measures import Measure
from .world import COLOURS

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


CORNERS = {3: "triangle", 4: "square", 5: "star"}
# From here on a harmonic stands out: midway between the most that true circles show of it after the VAE (0.09, 0.13,
# 0.08) and the least that the outline does whose it is (0.54, 0.10, 0.15), over 400 frames of 200 clips.
LEAST = {3: 0.31, 4: 0.11, 5: 0.11}


def outline_of(frame: Tensor) -> str:
    """Name the outline in a frame ``3 h w`` by its corners: the strongest harmonic of 3, 4 and 5, or a circle if weak.

    A harmonic of order n is the length of the mean of (z/R)^n over the shape, z from its centre, over the mean of its
    absolute value. It survives a decoder that rounds corners, as an overlap with sharp templates does not.
    """
    s, seen = saturation(frame[None])[0], track(frame[None])
    area = int(seen.area[0])
    if area < 1:
        return "circle"
    cover = (s / s.flatten().topk(max(area // 2, 1)).values.median() - 0.15).clamp(0, 1)
    y, x = (torch.arange(n, device=s.device) + 0.5 for n in s.shape)
    x, y = x - (cover.sum(0) * x).sum() / cover.sum(), y - (cover.sum(1) * y).sum() / cover.sum()
    radius = torch.hypot(x[None, :], y[:, None]) / math.sqrt(area / math.pi)
    angle = torch.atan2(y[:, None].expand_as(s), x[None, :].expand_as(s))
    cover = cover * (radius < 2)

    def harmonic(n: int) -> float:
        weight = cover * radius**n
        mean = torch.hypot((weight * (n * angle).cos()).sum(), (weight * (n * angle).sin()).sum())
        return float(mean / weight.sum().clamp_min(1e-6))

    strength, corners = max((harmonic(n), n) for n in CORNERS)
    return CORNERS[corners] if strength > LEAST[corners] else "circle"


def _picture(frame: Frame) -> Tensor:
    """``1 3 h w`` in [0, 1]."""
    return torch.from_numpy(frame.small).permute(2, 0, 1)[None].float() / 255


def _kept(frame: Frame) -> float:
    first, seen = track(_picture(frame.first)), track(_picture(frame))
    return float(start_kept(seen, first, COLOURS)[0])


# What `python -m framepack drift` can measure beside the measures for any video.
MEASURES = {
    "shape": Measure(
        name="shape", unit="0 or 1", about="the start frame's shape is there, in its colour and size", of=_kept
    )
}
