"""What a section sees: its history, gathered and treated, and a history that its own first steps choose.

Dims: b batch, c channels, t h w latent grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..planning.choice import EARLY
from ..planning.section import Section
from .history import ContextGroup, gather
from .similarity import Chooser
from .treatment import UNTREATED, Treatment

Timeline = Mapping[int | str, Tensor]  # normalised latents ``b c 1 h w`` by latent frame or slot


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How section number `index` of a plan sees a timeline; `like` states batch, channels and grid."""

    timeline: Timeline
    like: Tensor
    index: int = 0
    seed: int = 0
    treatment: Treatment = UNTREATED

    def history(self, section: Section) -> list[ContextGroup]:
        """The history of a section whose choice is made."""
        return gather(section, self.treatment.treated(section, self.timeline, self.seed, self.index), self.like)

    def seen(self, section: Section) -> Seen:
        """What a section sees. Raises PlanError for what is missing, LatentSizeError for another size."""
        chooser = Chooser.of(section, self.timeline)
        if chooser is None:
            return Seen(section=section, history=self.history(section))
        first = chooser.chosen(chooser.estimated)
        late = None if chooser.settled else Late(chooser=chooser, view=self)
        return Seen(section=first, history=self.history(first), late=late)


@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """A history that a section's own first steps choose."""

    chooser: Chooser
    view: View

    def history(self, x0: Tensor) -> list[ContextGroup]:
        """The history by what the model makes of the section so far, ``1 c t h w``."""
        return self.view.history(self.chooser.chosen(x0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A section with its choice made, its history, and what replaces that after the first steps."""

    section: Section
    history: list[ContextGroup]
    late: Late | None = None


class Turning:
    """The history while a section is sampled at the levels `sigmas`: what the first steps see, then what they chose."""

    def __init__(self, history: list[ContextGroup], late: Late | None, sigmas: Tensor):
        self.history, self.late = history, late
        last = len(sigmas) - 1
        self.level = float(sigmas[min(max(round(EARLY * last), 1), last)])  # from here on the choice counts
        self.x0: Tensor | None = None

    def turns(self, sigma: float) -> bool:
        """Is this noise level the first to see the chosen history, which then is `history`?"""
        if self.late is None or self.x0 is None or sigma > self.level + 1e-6:
            return False
        self.history, self.late = self.late.history(self.x0), None
        return True

    def saw(self, x0: Tensor) -> None:
        """What the model makes of the section at a step."""
        self.x0 = x0 if self.late else None
