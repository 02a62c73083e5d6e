"""The orders of generation (paper section 3.3) over one span of a video: sections, what each sees, and where.

Ranges are latent frames, half open. Positions are the time indices of RoPE: each section's begin at 0, and groups
stand side by side but for skips. RoPE between picture tokens is shift-invariant, but text tokens are not rotated, so
absolute positions count too. A gap rule says how many positions a skip spans: `released` (at most 3 sections in the
first pass, then 2), `pinned` (none), `true` (as many as frames), `capped:N` (at most N sections). With the inverted
order `released` gives gaps of 3, 2, ..., 2, 1, 0 sections.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ..errors import PlanError, quoted
from ..schedule.grammar import Group, Sampling, Schedule
from ..schedule.tails import TAILS
from ..units import TRAINED_POSITIONS
from .section import Context, Section

GAP_RULES = ("released", "pinned", "true", "capped:N")
DEFAULT_GAP = {"inverted": "released", "endpoint": "capped:3", "vanilla": "pinned"}
TRAINED = {
    "inverted": TRAINED_POSITIONS["inverted"],
    "endpoint": TRAINED_POSITIONS["inverted"],
    "vanilla": TRAINED_POSITIONS["forward"],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A gap rule; `cap` is in sections, for `capped`. With a `limit`, gaps shrink to keep positions below it."""

    rule: str
    cap: int = 0
    limit: int | None = None

    @classmethod
    def parse(cls, text: str) -> Gap:
        """Read ``released``, ``pinned``, ``true`` or ``capped:N``. Raises PlanError."""
        if isinstance(text, str):
            if match := re.fullmatch(r"capped:([0-9]{1,4})", text, re.ASCII):
                return cls(rule="capped", cap=int(match[1]))
            if text in GAP_RULES[:3]:
                return cls(rule=text)
        raise PlanError(f"The gap is one of {', '.join(GAP_RULES)}; got {quoted(text)}. Try capped:3.")

    @classmethod
    def default(cls, order: Sampling) -> Gap:
        """An order's own rule, kept within the positions that released models were trained on where possible."""
        return replace(cls.parse(DEFAULT_GAP[order]), limit=TRAINED[order].stop)

    def bridge(self, skips: Sequence[int], num_others: int, generate: int, first: bool) -> list[int]:
        """The gaps in positions over skipped frames.

        `num_others` positions are taken by all else; `first` is true of the span's first section.
        """
        most = {"pinned": 0, "released": (3 if first else 2) * generate, "capped": self.cap * generate}.get(self.rule)
        gaps = [max(skip if most is None else min(skip, most), 0) for skip in skips]
        room = -1 if self.limit is None else self.limit - num_others
        if 0 <= room < sum(gaps):
            return [gap * room // sum(gaps) for gap in gaps]
        return gaps


def beyond_training(order: Sampling, highest: int) -> str | None:
    """A warning where a plan's highest position is above those that the released models were trained on."""
    trained = TRAINED[order]
    if highest in trained:
        return None
    return (
        f"Positions reach {highest}; the released models of this order were trained on 0 to {trained[-1]}, so expect "
        "lower quality from them."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Frames [start, stop) to make. [first, start) and [stop, last) exist already; frame -1 is a zero latent."""

    start: int
    stop: int
    first: int
    last: int

    @property
    def past(self) -> range:
        """The frames that exist before it."""
        return range(self.first, self.start)

    @property
    def future(self) -> range:
        """The frames that exist after it."""
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
    """One section that makes `made`, and `ending` with it: its context from `past` and `future`, and all positions."""
    far, near, num_made = _length(schedule.far_past), _length(schedule.past), made[1] - made[0]
    right = schedule.future + schedule.far_future
    # Beyond a skip stand the oldest frames, but in the inverted order the nearest.
    oldest = past.stop - far if schedule.sampling == "inverted" else past.start
    newest = past.stop - near
    behind, ahead = _tails(schedule, range(oldest + far, newest), range(future.start + _length(right), future.stop))
    skips = (
        newest - oldest - far if far and near else 0,
        made[0] - newest - near if near else made[0] - oldest - far,
        future.start - made[1] if future or ending else 0,
    )
    num_others = len(behind) + far + near + num_made + max(_length(right), ending[1] - ending[0] if ending else 0)
    inner, before, after = gap.bridge(skips, num_others, schedule.generate, first)
    at = far + (max(inner, len(behind)) if near else 0)  # where the past's near groups begin
    start = at + near + (before if near else max(before, len(behind)))
    there = start + num_made + after
    tail_stop = at if near else start
    context = [
        *_contexts(schedule.far_past, oldest, 0, past),
        *_contexts(schedule.past, newest, at, past),
        *_contexts(right, future.start, there, future),
    ]
    context = [
        *_tail(schedule, behind, tail_stop - len(behind)),
        *context,
        *_tail(schedule, ahead, there + _length(right)),
    ]
    positions = [*range(start, start + num_made)]
    if ending:
        positions += range(there, there + ending[1] - ending[0])
    return Section(makes=(made, ending) if ending else (made,), positions=tuple(positions), context=tuple(context))


def _tails(schedule: Schedule, behind: range, ahead: range) -> tuple[range, range]:
    """The tail's frames in the past and in the future, of which the schedule keeps one or none."""
    none = range(0)
    if not TAILS[schedule.tail].kept:
        return none, none
    if schedule.tail_side == "past":
        return range(max(behind.start, 0), max(behind.stop, 0)), none
    return none, ahead


def _contexts(groups: Iterable[Group], frame: int, position: int, known: range) -> list[Context]:
    """Contexts of neighbouring groups that begin at a frame and a position; None for frames that are not known."""
    contexts = []
    for group in groups:
        frames, positions = (range(at, at + group.num_lat_frames) for at in (frame, position))
        there = frames[0] in known and frames[-1] in known and frames.start >= 0
        seen = frames if there else tuple([i if i in known and i >= 0 else None for i in frames])
        contexts.append(Context(kernel=group.kernel, frames=seen, positions=positions))
        frame, position = frames.stop, position + group.num_lat_frames
    return contexts


def _tail(schedule: Schedule, frames: range, position: int) -> list[Context]:
    """The tail as a context group, where there are such frames."""
    if not frames:
        return []
    positions = range(position, position + len(frames))
    return [Context(kernel=schedule.tail_kernel, frames=frames, positions=positions, tail=schedule.tail)]


def _length(groups: Iterable[Group]) -> int:
    return sum(group.num_lat_frames for group in groups)
