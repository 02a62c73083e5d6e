"""A plan: a video as a graph of sections, written as JSON. Indices are latent frames, ranges half open."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from dataclasses import fields as fields_of
from itertools import accumulate, pairwise
from typing import Any

from ..errors import PlanError, quoted
from ..schedule.grammar import parse
from ..units import RELEASED, Geometry
from .importance import ByTime
from .indices import ranges
from .json_fields import bool_of, int_of, ints_of, list_of, load_json, object_of, slot_of
from .section import Section, num_context_frames

MAX_LAT_FRAMES = 9001  # twenty minutes at 30 fps, or 1,000 sections of 9
MAX_CONTEXT_FRAMES = 6_000_000  # of all sections together


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """Latents from outside that are part of the video: their slot's name, first latent frame, and how many.

    `clips` are the lengths of the clips that they decode as, where sections are clips; one clip if empty. Raises
    PlanError.
    """

    slot: str
    frame: int
    num_lat_frames: int = 1
    clips: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.clips and sum(self.clips) != self.num_lat_frames:
            raise PlanError(
                f"The clips of an anchor of {self.num_lat_frames} latent frames add up to them; got "
                f"{quoted(list(self.clips))}."
            )

    @property
    def pieces(self) -> list[range]:
        """The latent frames of each of its clips."""
        stops = list(accumulate(self.clips or (self.num_lat_frames,), initial=self.frame))
        return [range(start, stop) for start, stop in pairwise(stops)]

    @property
    def frames(self) -> range:
        """The latent frames that it fills."""
        return range(self.frame, self.frame + self.num_lat_frames)

    def to_dict(self) -> dict[str, Any]:
        """As in the plan's JSON; a number of 1 is left out."""
        many = {"num_lat_frames": self.num_lat_frames} if self.num_lat_frames != 1 else {}
        return {"slot": self.slot, "frame": self.frame} | many | ({"clips": list(self.clips)} if self.clips else {})

    @classmethod
    def from_dict(cls, data: object) -> Anchor:
        """From the plan's JSON. Raises PlanError."""
        fields = object_of(data, "An anchor", {"slot", "frame"}, {"num_lat_frames", "clips"})
        return cls(
            slot=slot_of(fields["slot"]),
            frame=int_of(fields["frame"], "An anchor's frame", 0),
            num_lat_frames=int_of(fields.get("num_lat_frames", 1), "An anchor's num_lat_frames", 1),
            clips=ints_of(fields.get("clips", []), "The length of an anchor's clip", 1),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A whole video. `sections` stand in order of generation; height and width are pixels, where they are fixed.

    `geometry` is that of the backbone that samples it, `importance` names the strategy that filled its contexts. `kept`
    are the decoded frames that are kept where its length is exact; None for all.
    """

    schedule: str
    num_lat_frames: int
    sections: tuple[Section, ...] = ()
    anchors: tuple[Anchor, ...] = ()
    height: int | None = None
    width: int | None = None
    geometry: Geometry = RELEASED
    importance: str = ByTime.name
    kept: tuple[int, int] | None = None

    @property
    def num_pix_frames(self) -> int:
        """Frames that the video's latents decode to."""
        return sum(self.geometry.pixel_frames(len(clip)) for clip in self.clips)

    @property
    def kept_frames(self) -> range:
        """The decoded frames that make up the video."""
        return range(*self.kept) if self.kept else range(self.num_pix_frames)

    @property
    def clips(self) -> list[range]:
        """The latent frames that decode together, in order of time: all, or those of each section and anchor's clip."""
        if not self.geometry.sections_are_clips:
            return [range(self.num_lat_frames)]
        made = [range(start, stop) for section in self.sections for start, stop in section.makes]
        placed = [piece for anchor in self.anchors for piece in anchor.pieces]
        return sorted([*made, *placed], key=lambda clip: clip.start)

    @property
    def slots(self) -> set[str]:
        """Every slot that needs a latent: anchors and context-only frames."""
        return {anchor.slot for anchor in self.anchors}.union(*(section.slots for section in self.sections))

    @property
    def highest(self) -> int:
        """The highest position of any section."""
        return max(section.highest for section in self.sections)

    def ready(self) -> Iterator[int]:
        """After each section: how many latent frames from the video's beginning on exist without a gap."""
        there, num = {frame for anchor in self.anchors for frame in anchor.frames}, 0
        for section in self.sections:
            there.update(section.made)
            while num in there:
                num += 1
            yield num

    def to_dict(self) -> dict[str, Any]:
        """As in the plan's JSON."""
        return {
            "schedule": self.schedule,
            "num_lat_frames": self.num_lat_frames,
            "num_pix_frames": self.num_pix_frames,
            **({} if self.kept is None else {"kept": list(self.kept)}),
            "height": self.height,
            "width": self.width,
            **({} if self.geometry == RELEASED else {"geometry": asdict(self.geometry)}),
            **({} if self.importance == ByTime.name else {"importance": self.importance}),
            "anchors": [anchor.to_dict() for anchor in self.anchors],
            "sections": [s.to_dict() for s in self.sections],
        }

    def to_json(self, indent: int | None = None) -> str:
        """The plan JSON."""
        return json.dumps(self.to_dict(), indent=indent, separators=None if indent else (",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read and check plan JSON. Raises PlanError, and ScheduleError for its schedule."""
        if isinstance(text, str) and (num := text.count('"makes"')) > MAX_LAT_FRAMES:  # before it takes memory
            raise PlanError(f"A plan has at most {MAX_LAT_FRAMES} sections; got {num}. Use EndpointPlanner's plan.")
        fields = object_of(
            load_json(text, "plan"),
            "The plan",
            {"schedule", "num_lat_frames", "sections"},
            {"num_pix_frames", "kept", "height", "width", "geometry", "importance", "anchors"},
        )
        if not isinstance(fields["schedule"], str):
            raise PlanError(f"The plan's schedule is text; got {quoted(fields['schedule'])}.")
        sides = {
            side: None if (pixels := fields.get(side)) is None else int_of(pixels, f"The plan's {side}", 1)
            for side in ("height", "width")
        }
        plan = cls(
            schedule=str(parse(fields["schedule"])),
            num_lat_frames=int_of(fields["num_lat_frames"], "num_lat_frames", 1),
            sections=tuple(Section.from_dict(s) for s in list_of(fields["sections"], "The plan's sections")),
            anchors=tuple(Anchor.from_dict(a) for a in list_of(fields.get("anchors", []), "The plan's anchors")),
            geometry=geometry_of(fields.get("geometry", {})),
            importance=slot_of(fields.get("importance", ByTime.name)),
            kept=kept_of(fields.get("kept")),
            **sides,
        )
        if fields.get("num_pix_frames", plan.num_pix_frames) != plan.num_pix_frames:
            raise PlanError(
                f"The plan's num_pix_frames must be {plan.num_pix_frames} for {plan.num_lat_frames} latent frames; got "
                f"{quoted(fields['num_pix_frames'])}."
            )
        plan.check()
        return plan

    def check(self) -> None:
        """Every frame is made or anchored exactly once, and made before it is context. Raises PlanError."""
        if not 1 <= self.num_lat_frames <= MAX_LAT_FRAMES:
            raise PlanError(f"A plan has 1 to {MAX_LAT_FRAMES} latent frames; got {self.num_lat_frames}.")
        if not self.sections:
            raise PlanError("A plan has at least one section; got none, so there is nothing to generate.")
        if (num := num_context_frames(self.sections)) > MAX_CONTEXT_FRAMES:
            raise PlanError(f"A plan's contexts have at most {MAX_CONTEXT_FRAMES} frames together; got {num}.")
        if self.kept and not self.kept[0] < self.kept[1] <= self.num_pix_frames:
            raise PlanError(
                f"A plan keeps [start, stop) of its {self.num_pix_frames} frames; got {quoted(list(self.kept))}."
            )
        maker: list[int | None] = [None] * self.num_lat_frames  # section by frame, -1 for anchors
        for anchor in self.anchors:
            self._add(maker, anchor.frames, -1, f"The anchor {anchor.slot!r}")
        for index, section in enumerate(self.sections):
            self._check_needs(section, index, maker)
            for start, stop in section.makes:
                self._add(maker, range(start, stop), index, f"Section {index}")
        if None in maker:
            raise PlanError(f"Latent frame {maker.index(None)} is neither made by a section nor an anchor.")

    def _add(self, maker: list[int | None], frames: range, index: int, who: str) -> None:
        if frames.stop > self.num_lat_frames:
            raise PlanError(f"{who} makes latent frame {frames.stop - 1}; the last one is {self.num_lat_frames - 1}.")
        for frame in frames:
            if maker[frame] is not None:
                raise PlanError(f"{who} makes latent frame {frame}, which is made already.")
            maker[frame] = index

    def _check_needs(self, section: Section, index: int, maker: Sequence[int | None]) -> None:
        needs = section.makers(maker) - {-1}
        if None in needs:
            missing = min(f for f in section.known if f >= len(maker) or maker[f] is None)
            raise PlanError(f"Section {index} looks at latent frame {missing}, which is not made before it.")
        if unnamed := needs.difference(section.needs):
            raise PlanError(f"Section {index} looks at frames of section {min(unnamed)}, which is not in its needs.")
        if late := [max(run.start, index) for run in ranges(section.needs) if run.stop > index]:
            raise PlanError(f"Section {index} needs section {late[0]}, which is not made before it.")


def kept_of(data: object) -> tuple[int, int] | None:
    """The frames that are kept, from the plan's JSON. Raises PlanError."""
    if data is None:
        return None
    pair = ints_of(data, "An end of kept", 0)
    if len(pair) != 2:
        raise PlanError(f"kept is a pair such as [0, 150]; got {quoted(data)}.")
    return pair


def geometry_of(data: object) -> Geometry:
    """From the plan's JSON; what it leaves out is the released models'. Raises PlanError."""
    names = {field.name for field in fields_of(Geometry)}
    given = object_of(data, "The plan's geometry", set(), names)
    clips = bool_of(given.pop("sections_are_clips", False), "The plan's sections_are_clips")
    sides = {name: int_of(value, f"The geometry's {name}", 1) for name, value in given.items()}
    return Geometry(**sides, sections_are_clips=clips)
