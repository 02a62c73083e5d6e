"""Latents from outside that sections see, in the order in which the release of Helios draws noise for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..errors import PlanError, quoted
from .json_fields import int_of, ints_of, list_of, slot_of
from .plan import Plan
from .request import END, FIRST, START, STILL, VIDEO

ORDER = (START, FIRST, STILL, VIDEO, END)  # and then key frames, by time


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """A slot, the lengths of its clips, and its first latent frame; None for one that is context only."""

    slot: str
    clips: tuple[int, ...] = (1,)
    frame: int | None = None

    @property
    def names(self) -> list[int | str]:
        """Under what a timeline holds its latent frames."""
        return [self.slot] if self.frame is None else list(range(self.frame, self.frame + sum(self.clips)))

    def to_list(self) -> list[Any]:
        """As in a slice's JSON."""
        return [self.slot, self.frame, list(self.clips)]

    @classmethod
    def from_list(cls, data: object) -> Outside:
        """From a slice's JSON. Raises PlanError."""
        fields = list_of(data, "A latent from outside")
        if len(fields) != 3:
            raise PlanError(f"A latent from outside is a slot, a frame and clips; got {quoted(fields)}.")
        slot, frame, clips = fields
        return cls(
            slot=slot_of(slot),
            frame=None if frame is None else int_of(frame, "The frame of a latent from outside", 0),
            clips=ints_of(clips, "The length of a clip from outside", 1),
        )


def outside_of(plan: Plan) -> tuple[Outside, ...]:
    """All latents from outside that a plan's sections see; none where the video is one clip, which gets no noise."""
    if not plan.geometry.sections_are_clips:
        return ()
    placed = {a.slot: Outside(slot=a.slot, frame=a.frame, clips=a.clips or (a.num_lat_frames,)) for a in plan.anchors}
    found = [placed.get(slot, Outside(slot=slot)) for slot in plan.slots]
    return tuple(sorted(found, key=_turn))


def seen(outside: Iterable[Outside], frames: set[int], slots: set[str]) -> tuple[Outside, ...]:
    """Those of which some frame is seen."""
    return tuple(o for o in outside if (o.slot in slots if o.frame is None else not frames.isdisjoint(o.names)))


def _turn(outside: Outside) -> tuple[int, int, str]:
    known = ORDER.index(outside.slot) if outside.slot in ORDER else len(ORDER)
    return known, outside.frame or 0, outside.slot
