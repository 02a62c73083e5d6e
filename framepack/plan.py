"""A plan: a video as a graph of sections, written as JSON. All indices are latent frames, ranges half open."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import PlanError
from .units import Kernel, pixel_frames

MAX_LAT_FRAMES = 9001  # twenty minutes at 30 fps


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Latent frames that go through one kernel.

    A frame is an index into the timeline, None (no frame yet: zeros at its position) or the name of a slot, a
    latent that is context only. `tail` is ``ta`` or ``tc`` on tail groups.
    """

    kernel: Kernel
    frames: tuple[int | str | None, ...]
    positions: tuple[int, ...]
    tail: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As in the plan's JSON."""
        k = self.kernel
        out: dict[str, Any] = {"kernel": [k.t, k.h, k.w], "frames": list(self.frames), "positions": list(self.positions)}
        return out | ({"tail": self.tail} if self.tail else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One sampling: the ranges it makes, their positions, its context, prompt, and the sections it needs."""

    makes: tuple[tuple[int, int], ...]
    positions: tuple[int, ...]
    context: tuple[Context, ...] = ()
    prompt: str | None = None
    needs: tuple[int, ...] = ()

    @property
    def num_lat_frames(self) -> int:
        """How many latent frames it makes."""
        return sum(stop - start for start, stop in self.makes)

    @property
    def made(self) -> Iterator[int]:
        """The latent frames it makes, ascending."""
        return (frame for start, stop in self.makes for frame in range(start, stop))

    def to_dict(self) -> dict[str, Any]:
        """As in the plan's JSON."""
        return {
            "makes": [list(r) for r in self.makes],
            "positions": list(self.positions),
            "context": [c.to_dict() for c in self.context],
            "prompt": self.prompt,
            "needs": list(self.needs),
        }

    def to_json(self) -> str:
        """Compact JSON: a node's literal input."""
        return json.dumps(self.to_dict(), separators=(",", ":"))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Section:
        """From the plan's JSON. Raises PlanError."""
        try:
            context = tuple(
                Context(
                    kernel=Kernel(*c["kernel"]),
                    frames=tuple(c["frames"]),
                    positions=tuple(c["positions"]),
                    tail=c.get("tail"),
                )
                for c in data["context"]
            )
            section = cls(
                makes=tuple((int(a), int(b)) for a, b in data["makes"]),
                positions=tuple(map(int, data["positions"])),
                context=context,
                prompt=data["prompt"],
                needs=tuple(data["needs"]),
            )
        except (KeyError, TypeError, ValueError) as fault:
            raise PlanError(f"A section of the plan cannot be read ({fault!r}); expected one of EndpointPlanner.") from fault
        if len(section.positions) != section.num_lat_frames:
            raise PlanError(f"A section has {len(section.positions)} positions for {section.num_lat_frames} frames.")
        return section

    @classmethod
    def from_json(cls, text: str) -> Section:
        """From `to_json`. Raises PlanError."""
        return cls.from_dict(_load(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """A latent from outside that is part of the video: its slot's name and its latent frame."""

    slot: str
    frame: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A whole video. `sections` stand in order of generation; height and width are pixels."""

    schedule: str
    num_lat_frames: int
    sections: tuple[Section, ...] = field(default=())
    anchors: tuple[Anchor, ...] = ()
    height: int | None = None
    width: int | None = None

    @property
    def num_pix_frames(self) -> int:
        """Pixel frames of the video."""
        return pixel_frames(self.num_lat_frames)

    @property
    def slots(self) -> set[str]:
        """Every slot that needs a latent: anchors and context-only frames."""
        named = {f for s in self.sections for c in s.context for f in c.frames if isinstance(f, str)}
        return named | {a.slot for a in self.anchors}

    def to_dict(self) -> dict[str, Any]:
        """As in the plan's JSON."""
        return {
            "schedule": self.schedule,
            "num_lat_frames": self.num_lat_frames,
            "num_pix_frames": self.num_pix_frames,
            "height": self.height,
            "width": self.width,
            "anchors": [{"slot": a.slot, "frame": a.frame} for a in self.anchors],
            "sections": [s.to_dict() for s in self.sections],
        }

    def to_json(self, indent: int | None = None) -> str:
        """The plan JSON."""
        return json.dumps(self.to_dict(), indent=indent)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read and check plan JSON. Raises PlanError."""
        data = _load(text)
        try:
            plan = cls(
                schedule=data["schedule"],
                num_lat_frames=data["num_lat_frames"],
                sections=tuple(map(Section.from_dict, data["sections"])),
                anchors=tuple(Anchor(slot=a["slot"], frame=a["frame"]) for a in data["anchors"]),
                height=data.get("height"),
                width=data.get("width"),
            )
        except (KeyError, TypeError) as fault:
            raise PlanError(f"The plan cannot be read ({fault!r}); expected the JSON of EndpointPlanner.") from fault
        plan.check()
        return plan

    def check(self) -> None:
        """Every frame is made once or anchored, and made before it is context. Raises PlanError."""
        if not 1 <= self.num_lat_frames <= MAX_LAT_FRAMES:
            raise PlanError(f"{self.num_lat_frames} latent frames came; expected 1 to {MAX_LAT_FRAMES}.")
        known: dict[int, int | None] = {a.frame: None for a in self.anchors}
        for index, section in enumerate(self.sections):
            seen = {f for c in section.context for f in c.frames if isinstance(f, int)}
            if missing := seen - known.keys():
                raise PlanError(f"Section {index} looks at frame {min(missing)}, which is not made before it.")
            needs = {known[f] for f in seen} - {None}
            if needs - set(section.needs):
                raise PlanError(f"Section {index} looks at section {max(needs)} and does not name it in needs.")
            for frame in section.made:
                if frame in known or not 0 <= frame < self.num_lat_frames:
                    raise PlanError(f"Section {index} makes frame {frame} twice or outside the video.")
                known[frame] = index
        if len(known) < self.num_lat_frames:
            gap = next(f for f in range(self.num_lat_frames) if f not in known)
            raise PlanError(f"Latent frame {gap} is made by no section.")


def _load(text: str) -> Mapping[str, Any]:
    try:
        data = json.loads(text)
    except ValueError as fault:
        raise PlanError(f"The plan is no JSON ({fault}); connect the plan of EndpointPlanner.") from fault
    if not isinstance(data, dict):
        raise PlanError(f"The plan is a JSON {type(data).__name__}; expected the object that EndpointPlanner gives.")
    return data
