"""What is done to history before it is packed, so that the faults of earlier sections do not add up.

The start frame, missing frames and images are left alone. Dims: b batch, c channels, n frames, h w latent grid.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import FramePackError
from ..planning.section import Section
from .codebook import Codebook

START_FRAME = 0  # of the video
Timeline = Mapping[int | str, Tensor]  # latents ``b c 1 h w`` by latent frame or slot


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """How history is treated: matched to the start, discretized, noised, in this order; all off by default.

    `match`: how far each channel's mean and variance over the history move to the start frame's, 0 to 1. `codebook`
    with `strength`: how far pixels move to their nearest centroid. `noise`: the noise level of history, which becomes
    (1 - level) latent + level noise; with `noise_above` only where mean and variance are both farther than that from
    the start's, on average over channels, as Helios repairs. `causal`: history sees history only, at timestep 0.
    Raises FramePackError for values out of bounds.
    """

    match: float = 0.0
    codebook: Codebook | None = None
    strength: float = 1.0
    noise: float = 0.0
    noise_above: float = 0.0
    causal: bool = False

    def __post_init__(self) -> None:
        for name in ("match", "strength", "noise"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise FramePackError(f"The history's {name} must be from 0 to 1; got {value:g}. Try 0.5.")
        if not self.noise_above >= 0:
            raise FramePackError(f"noise_above must be 0 or more; got {self.noise_above:g}. Try 0.15.")

    @property
    def changes(self) -> bool:
        """Does it change any latent?"""
        return bool(self.match or self.noise or (self.codebook and self.strength))

    @property
    def needs_start(self) -> bool:
        """Does it compare with the start frame?"""
        return bool(self.match or (self.noise and self.noise_above))

    def within(self, normalised: Callable[[Tensor], Tensor]) -> Treatment:
        """With its codebook in the model's normalised latents."""
        return self if self.codebook is None else replace(self, codebook=self.codebook.mapped(normalised))

    def treated(self, section: Section, timeline: Timeline, seed: int, index: int) -> Timeline:
        """The timeline with the frames that a section sees treated; `seed` and the section's number decide noise."""
        frames = sorted({frame for run in section.seen for frame in run} - {START_FRAME})
        if not (self.changes and frames):
            return timeline
        history, start = torch.cat([timeline[frame] for frame in frames], 2), timeline.get(START_FRAME)
        level = self._level(history, start)  # of the history as it came
        if self.match and start is not None:
            history = matched(history, start, self.match)
        if self.codebook is not None:
            history = self.codebook.discretize(history, self.strength)
        if level is not None:
            history = torch.lerp(history, _noise(history[:, :, :1], frames, seed, index), level)
        return ChainMap(dict(zip(frames, history.split(1, 2), strict=True)), dict(timeline))

    def _level(self, history: Tensor, start: Tensor | None) -> Tensor | None:
        """The noise level of each item of the batch, ``b 1 1 1 1``; None without noise."""
        if not self.noise or (self.noise_above and start is None):
            return None
        level = torch.full((len(history), 1, 1, 1, 1), self.noise).to(history)
        if self.noise_above and start is not None:
            (mean, variance), (first_mean, first_variance) = stats(history), stats(start)
            far = [
                (a - b).abs().mean(1, keepdim=True) > self.noise_above
                for a, b in ((mean, first_mean), (variance, first_variance))
            ]
            level = level * (far[0] & far[1])
        return level if level.any() else None


def stats(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Each channel's mean and variance over frames and pixels, both ``b c 1 1 1``."""
    variance, mean = torch.var_mean(latents, (2, 3, 4), correction=0, keepdim=True)
    return mean, variance


def matched(history: Tensor, start: Tensor, strength: float) -> Tensor:
    """History ``b c n h w`` with each channel's mean and variance moved to those of the start ``b c 1 h w``."""
    (mean, variance), (wanted_mean, wanted_variance) = stats(history), stats(start.to(history))
    scale = (wanted_variance / variance.clamp_min(1e-12)).sqrt()
    return torch.lerp(history, (history - mean) * scale + wanted_mean, strength)


def _noise(like: Tensor, frames: list[int], seed: int, index: int) -> Tensor:
    """Noise ``b c n h w`` of frames in a section's history, which no other frame's decides; like is ``b c 1 h w``."""

    def drawn(frame: int) -> Tensor:
        mixed = ((seed * 0x9E3779B97F4A7C15 + index + 1) * 0xBF58476D1CE4E5B9 + frame + 1) % 2**63
        return torch.randn(like.shape, generator=torch.Generator("cpu").manual_seed(mixed))

    return torch.cat([drawn(frame) for frame in frames], 2).to(like)


UNTREATED = Treatment()
