"""Guidance: what a step is led away from, and how far.

A second pass leaves something out, and the step goes on from it past the first: v = v0 + scale (v - v0). Text guidance
leaves out the prompt (Ho and Salimans 2022), at high noise levels alone if asked (Kynkaanniemi et al. 2024): there it
settles what happens, and further down it only moves what the neighbouring sections have settled. History guidance
leaves out the frames that a section sees as well (Song et al. 2025), so that it meets them more closely. A step is led
by one of the two, so it takes two passes at most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ..errors import FramePackError
from ..packing.history import ContextGroup

TEXT, HISTORY = "text", "history"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """How a section is guided.

    `cfg` is the scale of text guidance, 1 for none, at noise levels from `cfg_above` on. Where it does not act, history
    guidance does, with a scale of 1 + `history`; 0 for none. A section that sees no frame has the text to guide it at
    every level then. Raises FramePackError for what cannot be.
    """

    cfg: float = 1.0
    cfg_above: float = 0.0
    history: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.cfg_above <= 1:
            raise FramePackError(f"cfg_above must be a noise level from 0 to 1; got {self.cfg_above:g}. Try 0.9.")
        for name, scale in (("cfg", self.cfg), ("history_guidance", self.history)):
            if not 0 <= scale < math.inf:
                raise FramePackError(f"{name} must be a number from 0 on; got {scale:g}. Try 1.")

    def at(self, sigma: float, sees: bool) -> tuple[str | None, float]:
        """What a step at a noise level leaves out in its second pass, None for no such pass, and the scale.

        `sees`: is there any frame that the section sees?
        """
        alone = self.history > 0 and not sees
        if self.cfg != 1 and (alone or sigma >= self.cfg_above):
            return TEXT, self.cfg
        if self.history and sees:
            return HISTORY, 1 + self.history
        return None, 1.0


UNGUIDED = Guidance()


def sees(history: Sequence[ContextGroup]) -> bool:
    """Is there any frame in a history, or are all of them yet to be made?"""
    return any(bool(group.latents.any()) for group in history)


def blank(history: Sequence[ContextGroup]) -> list[ContextGroup]:
    """The history with zeros for its frames, as it is before anything is made; tokens and positions stay."""
    return [replace(group, latents=torch.zeros_like(group.latents)) for group in history]
