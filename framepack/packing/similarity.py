"""How alike history frames are to a section, and the choice that follows from it (paper v3, equations 3 to 5).

Dims: b batch, c channels, t h w latent grid, n frames of history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import PlanError
from ..planning.choice import Choice, refilled
from ..planning.section import Section

TOGETHER = 1 << 25  # values of frames that are compared at a time

Timeline = Mapping[int | str, Tensor]  # latents ``b c 1 h w`` by latent frame or slot


def likeness(frames: Sequence[Tensor], estimate: Tensor) -> list[float]:
    """The mean cosine over positions of each frame ``1 c 1 h w`` with a section ``1 c t h w``, from -1 to 1.

    The paper sums over positions; the mean keeps the weight of nearness the same at every size.
    """
    size, num = frames[0].shape[3:], max(TOGETHER // frames[0].numel(), 1)
    seen = estimate[0].float()
    if seen.shape[2:] != size:  # a pyramid's first steps are small
        seen = F.interpolate(seen.transpose(0, 1), size=size, mode="bilinear").transpose(0, 1)
    wanted = F.normalize(seen, dim=0).mean(1)  # c h w: the mean over t of unit vectors
    found: list[float] = []
    for first in range(0, len(frames), num):
        some = torch.cat(frames[first : first + num])[:, :, 0].to(wanted)  # n c h w
        dots = (some * wanted).sum(1)
        found += (dots / some.square().sum(1).sqrt().clamp_min(1e-8)).mean((1, 2)).tolist()
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Chooser:
    """Chooses a section's history from a timeline of normalised latents ``1 c 1 h w``."""

    section: Section
    choice: Choice
    timeline: Timeline

    @classmethod
    def of(cls, section: Section, timeline: Timeline) -> Chooser | None:
        """The chooser of a section that has anything to choose. Raises PlanError for a batch, which would have one
        history for all."""
        if section.choice is None:
            return None
        if len(next(iter(timeline.values()), ())) > 1:
            raise PlanError("Sections whose history is chosen by latents are sampled one video at a time.")
        return cls(section=section, choice=section.choice, timeline=timeline)

    @property
    def candidates(self) -> list[Tensor]:
        """The latents that it chooses from."""
        return list(map(self.timeline.__getitem__, self.choice.candidates))

    @property
    def estimated(self) -> Tensor | None:
        """What stands for the section before it is sampled, ``1 c t h w``; None where that is its own first steps."""
        if self.choice.reference is None:
            return None
        return torch.cat([self.timeline[frame] for frame in self.choice.reference], 2)

    @property
    def early(self) -> Section:
        """The section with what is nearest in time, before its own first steps are known."""
        return refilled(self.section, self.choice, self.choice.by_time())

    def chosen(self, estimate: Tensor | None) -> Section:
        """The section with its history, chosen by an estimate ``1 c t h w`` of what it makes."""
        if self.choice.by_time_alone or estimate is None:
            return self.early
        alike = likeness(self.candidates, estimate.to(self.candidates[0].device))
        return refilled(self.section, self.choice, self.choice.ranked(alike))

    @property
    def settled(self) -> bool:
        """Is the choice known before the section is sampled?"""
        return self.choice.by_time_alone or self.choice.reference is not None or len(self.choice.candidates) < 2

    def to_key(self) -> dict[str, Any]:
        """All that decides the choice, for the digest of a section whose own first steps make it."""
        return {"choice": self.choice.to_dict(), "candidates": self.candidates}
