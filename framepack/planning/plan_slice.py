"""A part of a plan that is sampled apart from the rest: by a node of the host's graph, or on another machine."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import PlanError
from ..schedule.grammar import parse
from ..units import RELEASED, Geometry
from .json_fields import bool_of, int_of, ints_of, list_of, load_json, object_of
from .outside import Outside, outside_of, seen
from .plan import Anchor, Plan, geometry_of, kept_of
from .section import Section
from .takes import Takes, from_data, to_data


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSlice:
    """Sections that follow one another in a plan, and what they need of it. Height and width are pixels.

    `first` is the number of the first section in the plan, and `anchors` are those that the sections look at. `drawn`
    are the latent frames of the sections before, where all draw their noise from one generator; None where each section
    has its own. A slice without sections says where its anchors lie. `clips` are the lengths of the clips that decode
    on their own; None where the video is one clip. `kept` are the decoded frames of the video, in a slice that
    reaches to its end; None for all. `outside` are the latents from outside for which noise is drawn. `discrete`: the
    schedule asks for discrete history (+d). `takes` are seeds and locks of its sections, by their number.
    """

    height: int
    width: int
    sections: tuple[Section, ...] = ()
    first: int = 0
    anchors: tuple[Anchor, ...] = ()
    drawn: tuple[int, ...] | None = None
    clips: tuple[int, ...] | None = None
    geometry: Geometry = RELEASED
    kept: tuple[int, int] | None = None
    outside: tuple[Outside, ...] = ()
    discrete: bool = False
    takes: Takes = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        plan: Plan,
        first: int = 0,
        stop: int | None = None,
        in_turn: bool = False,
        *,
        start: bool = False,
        takes: Takes | None = None,
    ) -> PlanSlice:
        """Sections `first` to `stop`, all by default; with `start`, the anchor of the start frame in any case.

        Raises PlanError for a plan without a size.
        """
        sections = plan.sections[first:stop]
        known = set().union(*(section.known for section in sections)) | ({0} if start else set())
        outside = outside_of(plan)
        if not in_turn:
            outside = seen(outside, known, set().union(*(section.slots for section in sections)))
        drawn = tuple(section.num_lat_frames for section in plan.sections[:first]) if in_turn else None
        anchors = (anchor for anchor in plan.anchors if known & set(anchor.frames))
        own = {i: take for i, take in (takes or {}).items() if first <= i < first + len(sections)}
        how: dict[str, Any] = {"drawn": drawn, "outside": outside, "discrete": parse(plan.schedule).discrete}
        return cls.placed(plan, anchors, sections=sections, first=first, takes=own, **how)

    @classmethod
    def within(cls, plan: Plan, frames: range) -> PlanSlice:
        """The anchors and clips of some latent frames, without sections. Raises PlanError for a plan without a size."""
        anchors = (anchor for anchor in plan.anchors if set(anchor.frames) & set(frames))
        apart = plan.geometry.sections_are_clips
        clips = tuple(len(clip) for clip in plan.clips if clip.start in frames) if apart else None
        kept = plan.kept if frames.stop == plan.num_lat_frames else None
        return cls.placed(plan, anchors, clips=clips, kept=kept)

    @classmethod
    def placed(cls, plan: Plan, anchors: Iterable[Anchor], **fields: Any) -> PlanSlice:
        """A slice of the plan's size with some of its anchors. Raises PlanError for a plan without a size."""
        if not plan.height or not plan.width:
            raise PlanError("The plan has no height and width. Plan with EndpointPlanner, which sets both.")
        size = {"height": plan.height, "width": plan.width, "geometry": plan.geometry}
        return cls(anchors=tuple(anchors), **size, **fields)

    @property
    def grid(self) -> tuple[int, int]:
        """Latent height and width."""
        return self.geometry.latent_grid(self.height, self.width)

    @property
    def slots(self) -> set[str]:
        """Every slot that needs a latent: anchors and context-only frames."""
        return {anchor.slot for anchor in self.anchors}.union(*(section.slots for section in self.sections))

    def to_json(self) -> str:
        """Compact JSON: a node's literal input."""
        data: dict[str, Any] = {"height": self.height, "width": self.width}
        if self.sections:
            data |= {"sections": [section.to_dict() for section in self.sections], "first": self.first}
        if self.anchors:
            data["anchors"] = [anchor.to_dict() for anchor in self.anchors]
        data |= {name: list(held) for name in ("drawn", "clips", "kept") if (held := getattr(self, name)) is not None}
        if self.discrete:
            data["discrete"] = True
        if takes := to_data(self.takes, sorted(self.takes)):
            data["takes"] = takes
        if self.geometry != RELEASED:
            data["geometry"] = asdict(self.geometry)
        if self.outside:
            data["outside"] = [each.to_list() for each in self.outside]
        return json.dumps(data, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> PlanSlice:
        """From `to_json`. Raises PlanError."""
        optional = {
            "sections",
            "first",
            "anchors",
            "drawn",
            "clips",
            "geometry",
            "kept",
            "outside",
            "discrete",
            "takes",
        }
        fields = object_of(load_json(text, "slice of a plan"), "The slice", {"height", "width"}, optional)
        return cls(
            height=int_of(fields["height"], "The slice's height", 1),
            width=int_of(fields["width"], "The slice's width", 1),
            sections=tuple(Section.from_dict(s) for s in list_of(fields.get("sections", []), "The slice's sections")),
            first=int_of(fields.get("first", 0), "The slice's first", 0),
            anchors=tuple(Anchor.from_dict(a) for a in list_of(fields.get("anchors", []), "The slice's anchors")),
            drawn=_lengths(fields.get("drawn"), "drawn"),
            clips=_lengths(fields.get("clips"), "clips"),
            geometry=geometry_of(fields.get("geometry", {})),
            kept=kept_of(fields.get("kept")),
            outside=tuple(Outside.from_list(o) for o in list_of(fields.get("outside", []), "The slice's outside")),
            discrete=bool_of(fields.get("discrete", False), "The slice's discrete"),
            takes=from_data(fields.get("takes", [])),
        )


def _lengths(data: object, name: str) -> tuple[int, ...] | None:
    return None if data is None else ints_of(data, f"The slice's {name}", 1)
