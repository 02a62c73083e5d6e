"""A plan: a video as a graph of sections, written as JSON. All indices are latent frames, ranges half open."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import PlanError
from ..schedule.grammar import MAX_KERNEL, num_tail_tokens, parse
from ..units import Kernel, pixel_frames
from . import prompts
from .json_fields import MAX_POSITION, frames_of, int_of, ints_of, list_of, load_json, object_of, slot_of

MAX_LAT_FRAMES = 9001  # twenty minutes at 30 fps, or 1,000 sections of 9
MAX_CONTEXT_FRAMES = 6_000_000  # of all sections together
INTS = tuple(range(20_000))  # shared, so that the long tails of many sections cost neither memory nor time of their own


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Latent frames that go through one kernel, in video time.

    A frame is an index into the timeline, None (no frame yet: a zero latent at its position, unmasked) or the name
    of a slot, a latent that is context only. `tail` is ``ta`` or ``tc`` on tail groups. Raises PlanError.
    """

    kernel: Kernel
    frames: tuple[int | str | None, ...]
    positions: tuple[int, ...]
    tail: str | None = None

    def __post_init__(self) -> None:
        if len(self.frames) != len(self.positions) or not self.frames:
            raise PlanError(
                f"a context group of {len(self.frames)} frames has {len(self.positions)} positions; expected one each"
            )
        if self.tail and not all(type(frame) is int for frame in (self.frames[0], self.frames[-1])):
            raise PlanError("a tail group came with a frame that is not there; expected latent frames that are made")

    @property
    def known(self) -> Iterator[range]:
        """The frames of the timeline that it looks at, in runs: a tail has thousands, in one."""
        first, last = self.frames[0], self.frames[-1]
        if self.tail and self.frames == INTS[first : last + 1]:  # type: ignore[operator, misc]
            yield range(first, last + 1)  # type: ignore[operator, arg-type]
        else:
            yield from (range(frame, frame + 1) for frame in self.frames if type(frame) is int)

    def num_tokens(self, height: int, width: int) -> int:
        """Tokens on a latent grid of height by width (paper section 4.1 for tails)."""
        if self.tail:
            return num_tail_tokens(self.tail, self.kernel, len(self.frames), height, width)
        return self.kernel.num_tokens(len(self.frames), height, width)

    def to_dict(self) -> dict[str, Any]:
        """As in the plan's JSON."""
        k = self.kernel
        out: dict[str, Any] = {
            "kernel": [k.t, k.h, k.w],
            "frames": list(self.frames),
            "positions": list(self.positions),
        }
        return out | ({"tail": self.tail} if self.tail else {})

    @classmethod
    def from_dict(cls, data: object) -> Context:
        """From the plan's JSON. Raises PlanError."""
        fields = object_of(data, "a context group", {"kernel", "frames", "positions"}, {"tail"})
        kernel = ints_of(fields["kernel"], "a kernel", 1)
        tail = fields.get("tail")
        if len(kernel) != 3 or max(kernel) > 2 * MAX_KERNEL:
            raise PlanError(
                f"the kernel {kernel!s:.40} came; expected [t, h, w] up to {2 * MAX_KERNEL}, such as [1, 2, 2]"
            )
        if tail not in (None, "ta", "tc"):
            raise PlanError(f"the tail {tail!r:.40} came; expected ta or tc, or none at all")
        return cls(
            kernel=Kernel(*kernel),
            frames=frames_of(fields["frames"]),
            positions=ints_of(fields["positions"], "positions", -MAX_POSITION),
            tail=tail,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One sampling: the ranges it makes, their positions, its context, prompt, and the sections it needs."""

    makes: tuple[tuple[int, int], ...]
    positions: tuple[int, ...]
    context: tuple[Context, ...] = ()
    prompt: prompts.Prompt | None = None
    needs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.makes or any(stop <= start for start, stop in self.makes):
            raise PlanError(f"a section makes {list(self.makes)}; expected ranges [start, stop) of one frame or more")
        if len(self.positions) != self.num_lat_frames:
            raise PlanError(
                f"a section makes {self.num_lat_frames} latent frames at {len(self.positions)} positions; expected one "
                "for each"
            )

    @property
    def num_lat_frames(self) -> int:
        """How many latent frames it makes."""
        return sum(stop - start for start, stop in self.makes)

    @property
    def made(self) -> Iterator[int]:
        """The latent frames it makes, in the order of its positions."""
        return (frame for start, stop in self.makes for frame in range(start, stop))

    @property
    def known(self) -> set[int]:
        """The frames of the timeline that it looks at."""
        return set().union(*(run for context in self.context for run in context.known))

    def makers(self, maker: Sequence[int | None]) -> set[int | None]:
        """Who made the frames that it looks at, given by frame; None for those that nobody did."""
        runs = [run for context in self.context for run in context.known]
        beyond = {None} if any(run.stop > len(maker) for run in runs) else set()
        return beyond.union(*(maker[run.start : run.stop] for run in runs))

    def num_context_tokens(self, height: int, width: int) -> int:
        """Tokens of its context, tails too, on a latent grid of height by width."""
        return sum(context.num_tokens(height, width) for context in self.context)

    def to_dict(self) -> dict[str, Any]:
        """As in the plan's JSON."""
        return {
            "makes": [list(r) for r in self.makes],
            "positions": list(self.positions),
            "context": [c.to_dict() for c in self.context],
            "prompt": prompts.to_data(self.prompt),
            "needs": list(self.needs),
        }

    def to_json(self) -> str:
        """Compact JSON: a node's literal input."""
        return json.dumps(self.to_dict(), separators=(",", ":"))

    @classmethod
    def from_dict(cls, data: object) -> Section:
        """From the plan's JSON. Raises PlanError."""
        fields = object_of(data, "a section", {"makes", "positions", "context"}, {"prompt", "needs"})
        makes = tuple(ints_of(pair, "a range", 0) for pair in list_of(fields["makes"], "makes"))
        if any(len(pair) != 2 for pair in makes):
            raise PlanError("a section's makes came without pairs; expected ranges such as [[28, 37]]")
        return cls(
            makes=makes,  # type: ignore[arg-type]
            positions=ints_of(fields["positions"], "positions", -MAX_POSITION),
            context=tuple(Context.from_dict(c) for c in list_of(fields["context"], "context")),
            prompt=prompts.from_data(fields.get("prompt")),
            needs=ints_of(fields.get("needs", []), "needs", 0),
        )

    @classmethod
    def from_json(cls, text: str) -> Section:
        """From `to_json`. Raises PlanError."""
        return cls.from_dict(load_json(text, "section"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """Latents from outside that are part of the video: their slot's name, first latent frame, and how many."""

    slot: str
    frame: int
    num_lat_frames: int = 1

    @property
    def frames(self) -> range:
        """The latent frames that it fills."""
        return range(self.frame, self.frame + self.num_lat_frames)

    def to_dict(self) -> dict[str, Any]:
        """As in the plan's JSON; a number of 1 is left out."""
        many = {"num_lat_frames": self.num_lat_frames} if self.num_lat_frames != 1 else {}
        return {"slot": self.slot, "frame": self.frame} | many

    @classmethod
    def from_dict(cls, data: object) -> Anchor:
        """From the plan's JSON. Raises PlanError."""
        fields = object_of(data, "an anchor", {"slot", "frame"}, {"num_lat_frames"})
        return cls(
            slot=slot_of(fields["slot"]),
            frame=int_of(fields["frame"], "an anchor's frame", 0),
            num_lat_frames=int_of(fields.get("num_lat_frames", 1), "an anchor's num_lat_frames", 1),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A whole video. `sections` stand in order of generation; height and width are pixels, where they are fixed."""

    schedule: str
    num_lat_frames: int
    sections: tuple[Section, ...] = ()
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

    def ready(self) -> Iterator[int]:
        """After each section: how many latent frames from the video's beginning on are there without a gap."""
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
            "height": self.height,
            "width": self.width,
            "anchors": [anchor.to_dict() for anchor in self.anchors],
            "sections": [s.to_dict() for s in self.sections],
        }

    def to_json(self, indent: int | None = None) -> str:
        """The plan JSON."""
        return json.dumps(self.to_dict(), indent=indent, separators=None if indent else (",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read and check plan JSON. Raises PlanError, and ScheduleError for its schedule."""
        fields = object_of(
            load_json(text, "plan"),
            "the plan",
            {"schedule", "num_lat_frames", "sections"},
            {"num_pix_frames", "height", "width", "anchors"},
        )
        if not isinstance(fields["schedule"], str):
            raise PlanError(f"the plan's schedule {fields['schedule']!r:.40} came; expected a string")
        sides = {
            side: None if (pixels := fields.get(side)) is None else int_of(pixels, f"the plan's {side}", 1)
            for side in ("height", "width")
        }
        plan = cls(
            schedule=str(parse(fields["schedule"])),
            num_lat_frames=int_of(fields["num_lat_frames"], "num_lat_frames", 1),
            sections=tuple(Section.from_dict(s) for s in list_of(fields["sections"], "sections")),
            anchors=tuple(Anchor.from_dict(a) for a in list_of(fields.get("anchors", []), "anchors")),
            **sides,
        )
        if fields.get("num_pix_frames", plan.num_pix_frames) != plan.num_pix_frames:
            raise PlanError(
                f"num_pix_frames {fields['num_pix_frames']!r:.40} came; {plan.num_lat_frames} latent frames are "
                f"{plan.num_pix_frames} pixel frames"
            )
        plan.check()
        return plan

    def check(self) -> None:
        """Every frame is made or anchored exactly once, and made before it is context. Raises PlanError."""
        if not 1 <= self.num_lat_frames <= MAX_LAT_FRAMES:
            raise PlanError(f"{self.num_lat_frames} latent frames came; expected 1 to {MAX_LAT_FRAMES}")
        maker: list[int | None] = [None] * self.num_lat_frames  # section by frame, -1 for anchors
        for anchor in self.anchors:
            if anchor.frames.stop > self.num_lat_frames:
                raise PlanError(
                    f"the anchor {anchor.slot!r} ends at latent frame {anchor.frames.stop}; the video has "
                    f"{self.num_lat_frames}"
                )
            for frame in anchor.frames:
                self._add(maker, frame, -1, f"the anchor {anchor.slot!r}")
        for index, section in enumerate(self.sections):
            self._check_needs(section, index, maker)
            for frame in section.made:
                self._add(maker, frame, index, f"section {index}")
        if None in maker:
            raise PlanError(f"latent frame {maker.index(None)} is made by no section and is no anchor")

    def _add(self, maker: list[int | None], frame: int, index: int, who: str) -> None:
        if not 0 <= frame < self.num_lat_frames:
            raise PlanError(f"{who} makes latent frame {frame}; the video has 0 to {self.num_lat_frames - 1}")
        if maker[frame] is not None:
            raise PlanError(f"{who} makes latent frame {frame}, which is there already")
        maker[frame] = index

    def _check_needs(self, section: Section, index: int, maker: Sequence[int | None]) -> None:
        needs = section.makers(maker) - {-1}
        if None in needs:
            missing = min(f for f in section.known if f >= len(maker) or maker[f] is None)
            raise PlanError(f"section {index} looks at latent frame {missing}, which is not made before it")
        if unnamed := needs - set(section.needs):
            raise PlanError(f"section {index} looks at frames of section {min(unnamed)}, which its needs do not name")
        if late := [need for need in section.needs if need >= index]:
            raise PlanError(f"section {index} needs section {late[0]}, which is not made before it")
