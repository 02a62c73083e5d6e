"""The orders of generation (paper section 3.3): each turns a schedule and a length into a plan.

Ranges are latent frames, half open. Latent frame 0 is the start frame: an anchor, or, without a start image, the
work of one extra first section from text alone. Only gaps between positions matter to RoPE, so the skip x is
bridged by a rule: `released` (3, 2, ..., 2, 1, 0 sections), `pinned` (none), `true` (time itself), `capped:N`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .errors import PlanError
from .plan import MAX_LAT_FRAMES, Anchor, Context, Plan, Section
from .schedule import Group, Schedule
from .units import num_sections

START, END = "start", "end"
DEFAULT_GAP = {"inverted": "released", "endpoint": "capped:3", "vanilla": "pinned"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A gap rule. `cap` is in sections, for the rule `capped`."""

    rule: str
    cap: int = 0

    @classmethod
    def parse(cls, text: str) -> Gap:
        """Read ``released``, ``pinned``, ``true`` or ``capped:N``. Raises PlanError."""
        if match := re.fullmatch(r"capped:([0-9]{1,4})", text):
            return cls(rule="capped", cap=int(match[1]))
        if text not in ("released", "pinned", "true"):
            raise PlanError(f"gap {text[:40]!r} came; expected released, pinned, true or capped:N, such as capped:3")
        return cls(rule=text)

    def bridge(self, frames: int, generate: int) -> int:
        """The gap in positions for so many skipped frames, of a schedule that generates so many."""
        frames = max(frames, 0)
        if self.rule == "pinned":
            return 0
        return frames if self.rule == "true" else min(frames, (self.cap or 3) * generate)

    def padding(self, index: int, total: int) -> int:
        """Skipped sections before section `index` (in time) of `total`, for the inverted order."""
        if self.rule == "released" and total > 4:
            return min(index, 3 if index == total - 1 else 2)
        return {"pinned": 0, "capped": min(index, self.cap)}.get(self.rule, index)


def make_plan(
    schedule: Schedule,
    *,
    num_lat_frames: int,
    start: bool = True,
    end: bool = False,
    gap: str | None = None,
    height: int | None = None,
    width: int | None = None,
) -> Plan:
    """Plan a video of so many latent frames. `start`, `end`: a start or end image will come. Raises PlanError."""
    if not 2 <= num_lat_frames <= MAX_LAT_FRAMES:
        raise PlanError(f"{num_lat_frames} latent frames came; expected 2 to {MAX_LAT_FRAMES} (20 minutes at 30 fps)")
    if end and schedule.sampling != "inverted":
        raise PlanError(
            f"an end image came with the {schedule.sampling} order of {schedule}; only an inverted schedule, such as "
            "f1k1_x_g9_f1k1f2k2f16k4_td, takes one"
        )
    rule = Gap.parse(gap or DEFAULT_GAP[schedule.sampling])
    order = {"vanilla": _forward, "endpoint": _endpoint, "inverted": _inverted}[schedule.sampling]
    first = [] if start else [Section(makes=((0, 1),), positions=(0,))]
    sections = _with_needs([*first, *order(schedule, num_lat_frames, rule, end)])
    plan = Plan(
        schedule=str(schedule),
        num_lat_frames=num_lat_frames,
        sections=sections,
        anchors=(Anchor(slot=START, frame=0),) if start else (),
        height=height,
        width=width,
    )
    plan.check()
    return plan


def lat_frames_for(seconds: float, fps: float, schedule: Schedule) -> int:
    """Latent frames of the nearest whole number of sections, start frame included. Raises PlanError."""
    longest = MAX_LAT_FRAMES * 4 / fps if fps > 0 else 0
    if not fps > 0:
        raise PlanError(f"{fps} frames per second came; expected more than 0, such as 30")
    if not 0 < seconds <= longest:
        raise PlanError(f"a length of {seconds:g} s came; expected more than 0 and at most {longest:.0f} s")
    count = num_sections(seconds, fps, schedule.generate)
    return 1 + min(count, (MAX_LAT_FRAMES - 1) // schedule.generate) * schedule.generate


def _ranges(start: int, stop: int, generate: int) -> list[tuple[int, int]]:
    return [(at, min(at + generate, stop)) for at in range(start, stop, generate)]


def _groups(groups: Iterable[Group], frames: Iterable[int], position: int, known: range) -> Iterator[Context]:
    """Contexts of neighbouring groups: `frames` ascending from the first group's, None where not in `known`."""
    frames = list(frames)
    at = 0
    for group in groups:
        own = range(at, at + group.num_lat_frames)
        yield Context(
            kernel=group.kernel,
            frames=tuple(frames[i] if frames[i] in known else None for i in own),
            positions=tuple(position + i for i in own),
        )
        at = own.stop


def _length(groups: Iterable[Group]) -> int:
    return sum(group.num_lat_frames for group in groups)


def _tail(schedule: Schedule, frames: range, position: int) -> list[Context]:
    kernel = schedule.tail_kernel()
    if schedule.tail not in ("ta", "tc") or kernel is None or not frames:
        return []
    positions = tuple(range(position, position + len(frames)))
    return [Context(kernel=kernel, frames=tuple(frames), positions=positions, tail=schedule.tail)]


def _forward(schedule: Schedule, total: int, gap: Gap, _end: bool) -> Iterator[Section]:
    """Vanilla, in temporal order; with a start part and x before the history, the forward (F1) model's."""
    far, main = schedule.far_part, schedule.main_part
    reach = _length(main)
    for start, stop in _ranges(1, total, schedule.generate):
        oldest = start - reach
        if far:
            skipped = oldest - _length(far)
            at = oldest if gap.rule == "true" else _length(far) + gap.bridge(skipped, schedule.generate)
        else:
            at = oldest
        context = [
            *_groups(far, range(_length(far)), 0, range(start)),
            *_tail(schedule, range(_length(far), oldest), at - max(oldest - _length(far), 0)),
            *_groups(main, range(oldest, start), at, range(start)),
        ]
        yield Section(makes=((start, stop),), positions=_run(at + reach, stop - start), context=tuple(context))


def _run(position: int, count: int) -> tuple[int, ...]:
    return tuple(range(position, position + count))


def _inverted(schedule: Schedule, total: int, gap: Gap, end: bool) -> Iterator[Section]:
    """The last section first, each towards the start frame (paper section 3.3, figure 2c)."""
    far, main = schedule.far_part, schedule.main_part
    ranges = _ranges(1, total, schedule.generate)
    for index in reversed(range(len(ranges))):
        start, stop = ranges[index]
        at = _length(far) + gap.padding(index, len(ranges)) * schedule.generate
        after = at + stop - start
        history = list(_groups(main, range(stop, stop + _length(main)), after, range(total)))
        if end and stop == total:
            first = history[0]
            history[0] = Context(kernel=first.kernel, frames=(END, *first.frames[1:]), positions=first.positions)
        oldest = stop + _length(main)
        context = [
            *_groups(far, range(_length(far)), 0, range(1)),
            *history,
            *_tail(schedule, range(oldest, total), after + _length(main)),
        ]
        yield Section(makes=((start, stop),), positions=_run(at, stop - start), context=tuple(context))


def _endpoint(schedule: Schedule, total: int, gap: Gap, _end: bool) -> Iterator[Section]:
    """Beginning and ending at once, then what lies between, forward (paper section 3.3, figure 2b)."""
    far, main, generate = schedule.far_part, schedule.main_part, schedule.generate
    reach, first_stop = _length(main), min(1 + generate, total)
    ending = max(first_stop, total - generate)
    for start, stop in _ranges(1, ending, generate):
        skip = ending - stop
        there = stop + gap.bridge(skip, generate)
        both = start == 1 and ending < total
        known = range(total) if not both else range(0)
        context = [
            *_tail(schedule, range(0, start - reach), 0),
            *_groups(main, range(start - reach, start), start - reach, range(start)),
            *_groups(far, range(ending, ending + _length(far)), there, known),
        ]
        yield Section(
            makes=((start, stop), (ending, total)) if both else ((start, stop),),
            positions=_run(start, stop - start) + (_run(there, total - ending) if both else ()),
            context=tuple(context),
        )


def _with_needs(sections: list[Section]) -> tuple[Section, ...]:
    """Name for each section those that made its context."""
    maker = {frame: i for i, section in enumerate(sections) for frame in section.made}
    done = []
    for section in sections:
        seen = {f for c in section.context for f in c.frames if isinstance(f, int)}
        needs = tuple(sorted({maker[f] for f in seen if f in maker}))
        done.append(
            Section(
                makes=section.makes,
                positions=section.positions,
                context=section.context,
                prompt=section.prompt,
                needs=needs,
            )
        )
    return tuple(done)
