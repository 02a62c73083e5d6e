"""What a section sees: its context frames, gathered from the timeline into one tensor per kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import LatentSizeError, PlanError
from ..planning.section import Context, Section
from ..schedule.tails import tail_of
from ..units import PATCH, Kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextGroup:
    """Latents ``b c n h w`` at positions ``n`` that go through one kernel; `tail` as in a plan.

    A tail tc may hold its frames or, as `gather` gives it, their mean ``b c 1 h w``; it keeps all positions.
    """

    kernel: Kernel
    latents: Tensor
    positions: tuple[int, ...]
    tail: str | None = None

    def num_tokens(self, patch: int = PATCH) -> int:
        """Tokens that it becomes; `patch` is a patch's side in latents."""
        frames, height, width = self.latents.shape[2:]
        return tail_of(self.tail).num_tokens(self.kernel, frames, height, width, patch)


def gather(section: Section, timeline: Mapping[int | str, Tensor], like: Tensor) -> list[ContextGroup]:
    """Look up a section's context in the timeline, ``b c 1 h w`` per latent frame or slot.

    Frames that do not exist yet are zeros of the batch, channels and grid of `like` (``b c t h w``). Raises
    PlanError for a slot without its latent, LatentSizeError for a frame of another size.
    """
    blank = like.new_zeros(*like.shape[:2], 1, *like.shape[3:])

    def frame(name: int | str | None) -> Tensor:
        if name is None:
            return blank
        if name not in timeline:
            what = f"slot {name!r}" if isinstance(name, str) else f"latent frame {name}"
            raise PlanError(f"The plan uses {what}, which has no latent. Connect it, or plan without it.")
        latent = timeline[name]
        if latent.shape[1:] != blank.shape[1:]:
            raise LatentSizeError(
                f"Frame {name!r} is {_size(latent)}; the section is {_size(blank)}. Give all images one size."
            )
        alike = latent.dtype == blank.dtype and latent.device == blank.device
        return latent if alike else latent.to(blank)

    def packed(context: Context) -> ContextGroup:
        # A tail is gathered here, once a section, so that no step's cost grows with the video.
        latents = tail_of(context.tail).gather(torch.cat([frame(f) for f in context.frames], 2))
        return ContextGroup(
            kernel=context.kernel, latents=latents, positions=tuple(context.positions), tail=context.tail
        )

    return [packed(context) for context in section.context]


def _size(latent: Tensor) -> str:
    _, channels, _, height, width = latent.shape
    return f"{channels} channels of {height}x{width} latents"
