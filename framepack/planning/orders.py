"""The orders of generation (paper section 3.3) over one span of a video: sections, what each sees, and where.

Ranges are latent frames, half open. RoPE is shift-invariant, so only the gaps between positions matter; the skip x
is bridged by a rule: `released` (at most 3 sections in the first pass, then 2), `pinned` (0), `true` (time itself),
`capped:N` (at most N sections). Inverted and released, that is 3, 2, ..., 2, 1, 0 sections.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from ..errors import PlanError
from ..schedule.grammar import Group, Schedule
from .plan import INTS, Context, Section

GAP_RULES = ("released", "pinned", "true", "capped:N")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A gap rule; `cap` is in sections, for `capped`."""

    rule: str
    cap: int = 0

    @classmethod
    def parse(cls, text: str) -> Gap:
        """Read ``released``, ``pinned``, ``true`` or ``capped:N``. Raises PlanError."""
        if match := re.fullmatch(r"capped:([0-9]{1,4})", text, re.ASCII):
            return cls(rule="capped", cap=int(match[1]))
        if text not in GAP_RULES[:3]:
            raise PlanError(f"the gap {text!r:.40} came; expected {', '.join(GAP_RULES)}, such as capped:3")
        return cls(rule=text)

    def bridge(self, skipped: int, generate: int, first: bool) -> int:
        """The gap in positions over so many skipped frames; `first` for the span's first section."""
        if self.rule == "true":
            return skipped
        most = {"pinned": 0, "released": 3 if first else 2, "capped": self.cap}[self.rule]
        return max(min(skipped, most * generate), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Frames [start, stop) to make. [first, start) and [stop, last) are there before; frame -1 is a zero latent."""

    start: int
    stop: int
    first: int
    last: int

    @property
    def past(self) -> range:
        """The frames that are there before it."""
        return range(self.first, self.start)

    @property
    def future(self) -> range:
        """The frames that are there after it."""
        return range(self.stop, self.last)


def inverted(schedule: Schedule, span: Span, gap: Gap) -> Iterator[Section]:
    """The last section first, each towards what is known on the left (figure 2c)."""
    edges = [span.start, *reversed(range(span.stop, span.start, -schedule.generate))]
    for start, stop in reversed(list(pairwise(edges))):
        yield lay_out(schedule, gap, (start, stop), span.past, range(stop, span.last), first=stop == span.stop)


def forward(schedule: Schedule, span: Span, gap: Gap) -> Iterator[Section]:
    """In temporal order (figure 2a); an endpoint's schedule looks ahead at what is known on the right."""
    yield from _steps(schedule, span, gap, first=True)


def _steps(schedule: Schedule, span: Span, gap: Gap, first: bool) -> Iterator[Section]:
    for start in range(span.start, span.stop, schedule.generate):
        made = (start, min(start + schedule.generate, span.stop))
        yield lay_out(schedule, gap, made, range(span.first, start), span.future, first=first and start == span.start)


def endpoint(schedule: Schedule, span: Span, gap: Gap) -> Iterator[Section]:
    """Beginning and ending at once, then what lies between, forward (figure 2b); forward if the ending is there."""
    if span.future:
        yield from forward(schedule, span, gap)
        return
    middle = min(span.start + schedule.generate, span.stop)
    ending = max(middle, span.stop - schedule.generate)
    both = (ending, span.stop) if ending < span.stop else None
    yield lay_out(schedule, gap, (span.start, middle), span.past, range(ending, ending), first=True, ending=both)
    if middle < ending:
        yield from _steps(schedule, Span(start=middle, stop=ending, first=span.first, last=span.stop), gap, first=False)


def halved(schedule: Schedule, span: Span, gap: Gap) -> Iterator[Section]:
    """The middle section first, then both halves, each on its own."""
    generate = schedule.generate
    count = -(-(span.stop - span.start) // generate)
    if count < 3:
        yield from ORDERS[schedule.sampling](schedule, span, gap)
        return
    start = span.start + count // 2 * generate
    stop = start + generate
    yield lay_out(schedule, gap, (start, stop), span.past, span.future, first=True)
    yield from halved(schedule, replace(span, stop=start, last=stop), gap)
    yield from halved(schedule, replace(span, start=stop, first=start), gap)


ORDERS = {"vanilla": forward, "endpoint": endpoint, "inverted": inverted}


def lay_out(
    schedule: Schedule,
    gap: Gap,
    made: tuple[int, int],
    past: range,
    future: range,
    *,
    first: bool,
    ending: tuple[int, int] | None = None,
) -> Section:
    """One section that makes `made`, and `ending` with it: what it sees of `past` and `future`, and all positions."""
    left = _left(schedule, gap, made[0], past, first)
    there = left.stop + made[1] - made[0] + gap.bridge(future.start - made[1], schedule.generate, first)
    right = schedule.future + schedule.far_future
    reach = future.start + _length(right)
    groups = [*left.groups, *_contexts(right, future.start, there, future)]
    if schedule.tail_side == "past":
        context = [*_tail(schedule, left.tail, left.tail_stop - len(left.tail)), *groups]
    else:
        context = [*groups, *_tail(schedule, range(reach, future.stop), there + _length(right))]
    positions = [*range(left.stop, left.stop + made[1] - made[0])]
    if ending:
        positions += range(there, there + ending[1] - ending[0])
    makes = (made, ending) if ending else (made,)
    return _from_zero(Section(makes=makes, positions=tuple(positions), context=tuple(context)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Left:
    """The past side of a section: its groups, the tail's frames, and the positions at which tail and side stop."""

    groups: list[Context]
    tail: range
    tail_stop: int
    stop: int


def _left(schedule: Schedule, gap: Gap, start: int, past: range, first: bool) -> _Left:
    """Lay out the past side. Beyond the skip stand the oldest frames, but in the inverted order the nearest."""
    far, near, generate = _length(schedule.far_past), _length(schedule.past), schedule.generate
    oldest = past.stop - far if schedule.sampling == "inverted" else past.start
    if not near:
        stop = far + gap.bridge(start - oldest - far, generate, first)
        groups = _contexts(schedule.far_past, oldest, 0, past)
        tail = range(past.start, oldest) if schedule.sampling == "inverted" else range(oldest + far, past.stop)
        return _Left(groups=groups, tail=tail, tail_stop=0 if schedule.sampling == "inverted" else stop, stop=stop)
    newest = past.stop - near
    at = far + gap.bridge(newest - oldest - far, generate, first) if far else newest
    return _Left(
        groups=[*_contexts(schedule.far_past, oldest, 0, past), *_contexts(schedule.past, newest, at, past)],
        tail=range(oldest + far, newest),
        tail_stop=at,
        stop=at + near + gap.bridge(start - past.stop, generate, first),
    )


def _contexts(groups: Iterable[Group], frame: int, position: int, known: range) -> list[Context]:
    """Contexts of neighbouring groups that begin at a frame and a position; None for frames that are not known."""
    contexts = []
    for group in groups:
        frames = range(frame, frame + group.num_lat_frames)
        contexts.append(
            Context(
                kernel=group.kernel,
                frames=tuple([i if i in known and i >= 0 else None for i in frames]),
                positions=tuple(range(position, position + group.num_lat_frames)),
            )
        )
        frame, position = frames.stop, position + group.num_lat_frames
    return contexts


def _tail(schedule: Schedule, frames: range, position: int) -> list[Context]:
    """The tail as a context group, where the schedule keeps it and there are such frames."""
    frames = range(max(frames.start, 0), frames.stop)
    if schedule.tail == "td" or not frames:
        return []
    positions = range(position, position + len(frames))
    return [
        Context(
            kernel=schedule.tail_kernel,
            frames=INTS[frames.start : frames.stop],
            positions=INTS[position : positions.stop] if position >= 0 else tuple(positions),
            tail=schedule.tail,
        )
    ]


def _length(groups: Iterable[Group]) -> int:
    return sum(group.num_lat_frames for group in groups)


def _from_zero(section: Section) -> Section:
    """The section with its positions shifted up, if any is negative, so that the lowest is 0."""
    lowest = min(section.positions[0], *(c.positions[0] for c in section.context)) if section.context else 0
    if lowest >= 0:
        return section
    context = tuple(replace(c, positions=tuple([p - lowest for p in c.positions])) for c in section.context)
    return replace(section, positions=tuple([p - lowest for p in section.positions]), context=context)
