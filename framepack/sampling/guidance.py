"""Guidance: a second pass without the prompt or the history, away from which a step is led.

Both give v = v0 + scale (v - v0), v0 the velocity of the second pass. Text guidance leaves out the prompt (Ho and
Salimans 2022), optionally only at high noise levels (Kynkaanniemi et al. 2024), where the content is decided; at low
levels it would only disturb what the neighbouring sections already show. History guidance leaves out the history too
(Song et al. 2025), so that a section continues it more closely. A step uses one of them and takes at most two passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import FramePackError
from ..packing.history import ContextGroup

ALL, TEXT, HISTORY = "all", "text", "history"  # passes: with nothing left out, without the prompt, without history too

Passes = Callable[[tuple[str, ...]], Sequence[Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """How a section is guided.

    `cfg` is the scale of text guidance, 1 for none, at noise levels from `cfg_above` on. Where it does not act, history
    guidance does, with a scale of 1 + `history`; 0 for none. A section that sees no frame has the text to guide it at
    every level then. With `zero_star` text guidance leads away from the second pass's share of the first (CFG-Zero*).
    Raises FramePackError for what cannot be.
    """

    cfg: float = 1.0
    cfg_above: float = 0.0
    history: float = 0.0
    zero_star: bool = False

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

    def guided(self, sigma: float, sees: bool, passes: Passes) -> Tensor:
        """What the model predicts at a noise level, led away from what the second pass leaves out.

        `passes` gives one prediction for each pass that it is asked for, such as velocities ``b c t h w``.
        """
        left_out, scale = self.at(sigma, sees)
        if left_out is None:
            (whole,) = passes((ALL,))
            return whole
        whole, other = passes((ALL, left_out))
        if self.zero_star and left_out == TEXT:
            other = other * zero_star(whole, other)
        return other + scale * (whole - other)


UNGUIDED = Guidance()


def sees(history: Sequence[ContextGroup]) -> bool:
    """Is there any frame in a history, or are all of them yet to be made?"""
    return any(bool(group.latents.any()) for group in history)


def blank(history: Sequence[ContextGroup]) -> list[ContextGroup]:
    """The history with zeros for its frames, as it is before anything is made; tokens and positions stay."""
    return [replace(group, latents=torch.zeros_like(group.latents)) for group in history]


def zero_star(velocity: Tensor, other: Tensor) -> Tensor:
    """The scale ``b 1 1 1 1`` of the velocity that guidance leads away from (CFG-Zero*, Fan et al. 2025, section 3.1).

    It is the projection of one velocity ``b c t h w`` on the other, item by item.
    """
    over = tuple(range(1, velocity.ndim))
    v, w = velocity.float(), other.float()
    return ((v * w).sum(over, keepdim=True) / (w.square().sum(over, keepdim=True) + 1e-8)).to(velocity)
