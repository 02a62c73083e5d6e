"""From a schedule and a length to a plan: the orders of generation (paper section 3.3), and planned endpoints.

Latent frame 0 is the start frame: an anchor where a start image will come, else the work of one extra first section
from text alone, else, as the released models have it, a zero latent that is no part of the video.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..errors import PlanError
from ..schedule.grammar import Schedule
from ..units import FRAMES_PER_LATENT, num_sections
from .orders import ORDERS, Gap, Span, halved, lay_out
from .plan import MAX_CONTEXT_FRAMES, MAX_LAT_FRAMES, Anchor, Plan, Section

START, END, VIDEO = "start", "end", "video"  # slots
DEFAULT_GAP = {"inverted": "released", "endpoint": "capped:3", "vanilla": "pinned"}
MAX_FPS = 240


Order = Callable[[Schedule, Span, Gap], Iterator[Section]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """A video of so many latent frames that is there already, and the direction in which it is made longer."""

    num_lat_frames: int
    direction: Literal["forwards", "backwards"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A planned endpoint at a latent frame: its image's slot, or None to make it, and its prompt, or None.

    `seconds` is the time that was asked for, where it was one, for messages.
    """

    frame: int
    slot: str | None = None
    prompt: str | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        """Its place in time."""
        return f"latent frame {self.frame}" if self.seconds is None else f"{self.seconds:g} s"


def make_plan(
    schedule: Schedule,
    *,
    num_lat_frames: int,
    start: bool = True,
    end: bool = False,
    gap: str | None = None,
    height: int | None = None,
    width: int | None = None,
    no_start: Literal["section", "zero"] = "section",
    endpoints: Iterable[Endpoint] = (),
    halve: bool = False,
    extend: Extension | None = None,
) -> Plan:
    """Plan a video of so many latent frames, the start frame and an extended video's included.

    `start`: a start image will come; where none will, `no_start` says whether a section makes latent frame 0 or a
    zero latent stands before it. `end`: an end image will come that is context only. `halve`: fill gaps from their
    middle (any number of `endpoints`, or none). `extend`: a video that is there and is made longer; one that is
    extended forwards begins with its own frames, whatever `start` says. Raises PlanError.
    """
    rule = _check(schedule, num_lat_frames, end, halve, gap)
    there = _there(extend, schedule, num_lat_frames, end)
    begun = bool(there) and there.start == 0
    zero = not start and no_start == "zero" and not begun
    points = _endpoints(endpoints, schedule, num_lat_frames, start=start or begun, zero=zero)
    if collided := [point for point in points[begun:] if point.frame in there]:
        raise PlanError(f"an endpoint at {collided[0]} came; the extended video is there already")
    order = halved if halve else ORDERS[schedule.sampling]
    walk = _walk(schedule, points, num_lat_frames, there, rule, order, zero)
    sections = _bounded(walk, f"{schedule} over {num_lat_frames} latent frames")
    plan = Plan(
        schedule=str(schedule),
        num_lat_frames=num_lat_frames,
        sections=_with_needs(_with_end(sections, num_lat_frames) if end else sections),
        anchors=_anchors(points[begun:], there),
        height=height,
        width=width,
    )
    plan.check()
    return plan


def _bounded(sections: Iterable[Section], what: str) -> list[Section]:
    """All sections, as long as they do not look at too much together."""
    done: list[Section] = []
    num_context = 0
    for section in sections:
        done.append(section)
        num_context += sum(len(c.frames) for c in section.context)
        if num_context > MAX_CONTEXT_FRAMES:
            raise PlanError(
                f"{what} looks at more than {MAX_CONTEXT_FRAMES} frames in all; plan a shorter video, a larger g, or "
                "the tail td"
            )
    return done


def lat_frames_for(seconds: float, fps: float, schedule: Schedule) -> int:
    """Latent frames of the nearest whole number of sections, start frame included. Raises PlanError."""
    if not 0 < fps <= MAX_FPS:
        raise PlanError(f"{fps:g} frames per second came; expected more than 0 and at most {MAX_FPS}, such as 30")
    most = (MAX_LAT_FRAMES - 1) // schedule.generate
    longest = most * schedule.generate * FRAMES_PER_LATENT / fps
    if not 0 < seconds <= longest:
        raise PlanError(f"a length of {seconds:g} s came; expected more than 0 and at most {math.floor(longest)} s")
    return 1 + min(num_sections(seconds, fps, schedule.generate), most) * schedule.generate


def _check(schedule: Schedule, num_lat_frames: int, end: bool, halve: bool, gap: str | None) -> Gap:
    if not 1 <= num_lat_frames <= MAX_LAT_FRAMES:
        raise PlanError(
            f"{num_lat_frames} latent frames came; expected 2 to {MAX_LAT_FRAMES} (twenty minutes at 30 fps)"
        )
    if end and schedule.sampling != "inverted":
        raise PlanError(
            f"an end image came with the {schedule.sampling} order of {schedule}; only an inverted schedule, such as "
            "f1k1_x_g9_f1k1f2k2f16k4_td, takes one"
        )
    if halve and schedule.sampling == "vanilla":
        raise PlanError(f"gaps are halved with a schedule that sees the future; {schedule} sees the past only")
    rule = Gap.parse(gap or DEFAULT_GAP[schedule.sampling])
    released_forward = schedule.sampling == "vanilla" and rule.rule == "released"
    return Gap(rule="pinned") if released_forward else rule


def _endpoints(
    endpoints: Iterable[Endpoint], schedule: Schedule, num_lat_frames: int, *, start: bool, zero: bool
) -> list[Endpoint]:
    """All endpoints in time, the start first, far enough from one another."""
    points = sorted(endpoints, key=lambda point: point.frame)
    if start or zero or not points or points[0].frame != 0:
        points.insert(0, Endpoint(frame=-1 if zero else 0, slot=START if start else None))
    for point in points[1:]:
        if not 0 < point.frame < num_lat_frames:
            raise PlanError(
                f"an endpoint at {point} came; expected latent frame 1 to {num_lat_frames - 1}, inside the video and "
                "after its start; there are four frames in each"
            )
    for before, after in zip(points, points[1:], strict=False):
        if 0 < after.frame - before.frame - 1 < schedule.generate or after.frame == before.frame:
            raise PlanError(
                f"endpoints at {before} and {after} came, with {max(after.frame - before.frame - 1, 0)} latent frames "
                f"between them; expected {schedule.generate} or more, one section of {schedule}"
            )
    if start and num_lat_frames < 2:
        raise PlanError("1 latent frame came, which is the start image itself; expected 2 or more")
    return points


def _there(extend: Extension | None, schedule: Schedule, num_lat_frames: int, end: bool) -> range:
    """The latent frames of the video that is extended; empty without one."""
    if extend is None:
        return range(0)
    num = extend.num_lat_frames
    if not 0 < num < num_lat_frames:
        raise PlanError(
            f"a video of {num} latent frames is to become {num_lat_frames} long; expected a video of 1 to "
            f"{num_lat_frames - 1}"
        )
    if extend.direction == "backwards" and schedule.sampling != "inverted":
        raise PlanError(
            f"a video is extended backwards with an inverted schedule, such as f1k1_x_g9_f1k1f2k2f16k4_td; {schedule} "
            f"is {schedule.sampling}"
        )
    if extend.direction == "forwards" and schedule.sampling == "inverted" and not end:
        raise PlanError(
            f"a video is extended forwards with a schedule that sees the past, such as f1k1_x_f16k4f2k2f1k1_g9; "
            f"{schedule} sees the future"
        )
    return range(num) if extend.direction == "forwards" else range(num_lat_frames - num, num_lat_frames)


def _anchors(points: Iterable[Endpoint], there: range) -> tuple[Anchor, ...]:
    """What comes from outside: endpoints' images and an extended video."""
    images = tuple(Anchor(slot=point.slot, frame=point.frame) for point in points if point.slot)
    return images + ((Anchor(slot=VIDEO, frame=there.start, num_lat_frames=len(there)),) if there else ())


def _walk(
    schedule: Schedule,
    points: Sequence[Endpoint],
    num_lat_frames: int,
    there: range,
    rule: Gap,
    order: Order,
    zero: bool,
) -> Iterator[Section]:
    """All sections: first those of the endpoints, then the gaps between them, each on its own."""
    blocks = []  # first frame and stop of what is known before the gaps are filled
    for index, point in enumerate(points):
        if not point.slot and not (zero and index == 0):
            yield Section(makes=((point.frame, point.frame + 1),), positions=(0,), prompt=point.prompt)
        stop = point.frame + 1
        if index:
            room = min(points[index + 1].frame if index + 1 < len(points) else num_lat_frames, stop + schedule.generate)
            past = range(point.frame, stop)
            if stop < room:
                section = lay_out(schedule, rule, (stop, room), past, range(room, room), first=True)
                yield replace(section, prompt=point.prompt)
            stop = room
        blocks.append((point.frame, stop))
    if there and there.start == 0:
        blocks[0] = (0, there.stop)
    blocks.append((there.start, num_lat_frames) if there and there.start else (num_lat_frames, num_lat_frames))
    for (first, start), (stop, last) in zip(blocks, blocks[1:], strict=False):
        if start < stop:
            for section in order(schedule, Span(start=start, stop=stop, first=first, last=last), rule):
                yield replace(section, prompt=_nearest(points, section))


def _nearest(points: Sequence[Endpoint], section: Section) -> str | None:
    """The prompt of the endpoint that is nearest in time."""
    start, stop = section.makes[0]
    return min(points, key=lambda point: abs(2 * point.frame + 1 - start - stop)).prompt


def _with_end(sections: list[Section], last: int) -> list[Section]:
    """The end image in the place of the first frame after the video's last section."""
    for index, section in enumerate(sections):
        after = next((i for i, c in enumerate(section.context) if c.positions[0] > section.positions[-1]), None)
        if after is not None and section.makes[-1][1] == last:
            context = list(section.context)
            context[after] = replace(context[after], frames=(END, *context[after].frames[1:]))
            return [*sections[:index], replace(section, context=tuple(context)), *sections[index + 1 :]]
    raise PlanError("an end image came, but no section makes the video's last frame")


def _with_needs(sections: Iterable[Section]) -> tuple[Section, ...]:
    """Name for each section those that made its context."""
    sections, done = list(sections), []
    maker: list[int | None] = [None] * max(stop for section in sections for _, stop in section.makes)
    for index, section in enumerate(sections):
        done.append(replace(section, needs=tuple(sorted(section.makers(maker) - {None}))))
        for start, stop in section.makes:
            maker[start:stop] = [index] * (stop - start)
    return tuple(done)
