"""Lays out a section: what it sees, and all positions.

A section's row in video time is: far past, skip, past, skip, generated, skip, future. Positions begin at 0, and all
stand side by side but for the skips, which gap rules bridge. A past tail stands in front of the groups that follow
it, where it needs a skip as long as itself; a future tail stands behind all groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..schedule.grammar import Group, Schedule
from ..schedule.tails import TAILS
from .choice import Choice, Choosing
from .gaps import Gap
from .importance import IMPORTANCE, ByTime, Importance, length, side_by_side
from .section import Context, Frame, Section

Frames = Sequence[Frame]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What a section sees: the frames of each group by place, and of a tail in the past or in the future."""

    oldest: int  # where the far past begins, in frames
    far_past: Sequence[Frames]
    past: Sequence[Frames]
    future: Sequence[Frames]
    behind: Sequence[int]
    beyond: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How every section of a video is laid out."""

    schedule: Schedule
    gap: Gap
    importance: Importance = IMPORTANCE[ByTime.name]
    choosing: Choosing | None = None

    def section(
        self,
        made: tuple[int, int],
        past: range,
        future: range,
        *,
        first: bool,
        ending: tuple[int, int] | None = None,
    ) -> Section:
        """One section that makes `made`, and `ending` with it, from the frames known in the past and the future.

        `first` is true of a span's first section, for gap rules.
        """
        schedule, seen, makes = self.schedule, self._seen(past, future), (made, ending) if ending else (made,)
        right = schedule.future + schedule.far_future
        skips = (
            past.stop - length(schedule.past) - seen.oldest - length(schedule.far_past),
            made[0] - past.stop if schedule.past else made[0] - seen.oldest - length(schedule.far_past),
            future.start - made[1] if future or ending else 0,
        )
        near, start, there = self._positions(seen, [stop - at for at, stop in makes], skips, first)
        front = near if schedule.past else start
        context = (
            *self._tail(seen.behind, front - len(seen.behind)),
            *_contexts(schedule.far_past, seen.far_past, 0),
            *_contexts(schedule.past, seen.past, near),
            *_contexts(right, seen.future, there),
            *self._tail(seen.beyond, there + length(right)),
        )
        starts = zip((start, there), makes, strict=False)
        positions = tuple(at + i for at, (begin, stop) in starts for i in range(stop - begin))
        choice = self._choice(bool(seen.behind), past, future)
        return Section(makes=makes, positions=positions, context=context, choice=choice)

    def _choice(self, tail_first: bool, past: range, future: range) -> Choice | None:
        """What fills the groups right before or right after the section, where that is chosen later."""
        schedule = self.schedule
        first = tail_first + len(schedule.far_past)
        if self.choosing is None or not (schedule.past or schedule.future):
            return None
        if schedule.future:
            slots = range(first, first + len(schedule.future))
            return self.choosing.over("future", slots, future, schedule.generate)
        return self.choosing.over("past", range(first, first + len(schedule.past))[::-1], past, schedule.generate)

    def _seen(self, past: range, future: range) -> _Seen:
        """Fill every slot. Beyond a skip stand the oldest frames, but in an inverted order the nearest."""
        schedule, far = self.schedule, length(self.schedule.far_past)
        oldest = past.stop - far if schedule.future else past.start
        before = self.importance.fill("past", schedule.past, past)
        ahead = self.importance if schedule.future else IMPORTANCE[ByTime.name]
        after = ahead.fill("future", schedule.future + schedule.far_future, future)
        behind, beyond = _from(before.rest, max(oldest + far, 0)), after.rest
        kept, side = TAILS[schedule.tail].kept, schedule.tail_side
        return _Seen(
            oldest=oldest,
            far_past=side_by_side(schedule.far_past, oldest, past),
            past=before.groups,
            future=after.groups,
            behind=behind if kept and side == "past" else range(0),
            beyond=beyond if kept and side == "future" else range(0),
        )

    def _positions(self, seen: _Seen, made: Sequence[int], skips: Sequence[int], first: bool) -> tuple[int, int, int]:
        """Where the near past, the generated frames and the future begin; `made` are the lengths of what is made."""
        schedule, tail = self.schedule, len(seen.behind)
        far, near = length(schedule.far_past), length(schedule.past)
        ahead = max(length(schedule.future + schedule.far_future), *made[1:], 0)
        inner, outer, after = self.gap.bridge(
            (skips[0] if far and near else 0, *skips[1:]),
            tail + far + near + made[0] + ahead,
            schedule.generate,
            first,
        )
        inner, outer = (max(inner, tail), outer) if near else (0, max(outer, tail))
        start = far + inner + near + outer
        return far + inner, start, start + made[0] + after

    def _tail(self, frames: Sequence[int], position: int) -> list[Context]:
        """The tail as a context group, where there are such frames."""
        if not frames:
            return []
        positions = range(position, position + len(frames))
        kernel, tail = self.schedule.tail_kernel, self.schedule.tail
        return [Context(kernel=kernel, frames=frames, positions=positions, tail=tail)]


def _from(frames: Sequence[int], least: int) -> Sequence[int]:
    """The frames from one on."""
    if isinstance(frames, range):
        return range(max(frames.start, least), frames.stop)
    return [frame for frame in frames if frame >= least]


def _contexts(groups: Iterable[Group], frames: Iterable[Frames], position: int) -> list[Context]:
    """Contexts of neighbouring groups that begin at a position."""
    contexts = []
    for group, seen in zip(groups, frames, strict=True):
        stop = position + group.num_lat_frames
        contexts.append(Context(kernel=group.kernel, frames=seen, positions=range(position, stop)))
        position = stop
    return contexts
