"""From a request to a plan: sections in order of generation (paper section 3.3), and planned endpoints."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from ..errors import PlanError
from ..schedule.grammar import Schedule
from .beginnings import with_beginning
from .layout import Layout
from .orders import Span
from .pins import with_pins
from .plan import MAX_CONTEXT_FRAMES, Anchor, Plan
from .references import with_references
from .request import END, START, VIDEO, Endpoint, Extension, PlanRequest, lat_frames_for
from .section import Section, num_context_frames

__all__ = ["END", "START", "VIDEO", "Endpoint", "Extension", "PlanRequest", "lat_frames_for", "make_plan", "plan_video"]

Poll = Callable[[], None]  # called often; raises to interrupt


def make_plan(schedule: Schedule, **options: Any) -> Plan:
    """The plan of a request with this schedule; options are PlanRequest's fields. Raises PlanError."""
    return plan_video(PlanRequest(schedule=schedule, **options))


def plan_video(request: PlanRequest, poll: Poll = lambda: None) -> Plan:
    """The plan of a request. `poll` is called once a section. Raises PlanError."""
    points = request.points()
    sections = _bounded(_walk(request, points), request, poll)
    if not sections:
        raise PlanError(
            f"A plan generates at least one latent frame; got key frames on all {request.num_lat_frames}. Use fewer."
        )
    if request.end:
        sections = _with_end(sections, request.num_lat_frames)
    if request.geometry.sections_are_clips:
        sections = with_beginning(sections, request)
    anchors = _anchors(request, points)
    if request.choosing:
        there = {frame for anchor in anchors for frame in anchor.frames}
        sections = with_references(with_pins(sections, request.pins, there))
    plan = Plan(
        schedule=str(request.schedule),
        num_lat_frames=request.num_lat_frames,
        sections=_with_needs(sections),
        anchors=anchors,
        height=request.height,
        width=request.width,
        geometry=request.geometry,
        importance=request.importance,
        kept=request.kept,
    )
    plan.check()
    return plan


def _bounded(sections: Iterable[Section], request: PlanRequest, poll: Poll) -> list[Section]:
    """All sections, while their contexts stay within the plan's bound."""
    done: list[Section] = []
    num_context = 0
    for section in sections:
        poll()
        done.append(section)
        num_context += num_context_frames([section])
        if num_context > MAX_CONTEXT_FRAMES:
            raise PlanError(
                f"The contexts of a plan have at most {MAX_CONTEXT_FRAMES} frames together; {request.schedule} over "
                f"{request.num_lat_frames} latent frames has more. Plan a shorter video, a larger g, or the tail td."
            )
    return done


def _anchors(request: PlanRequest, points: Sequence[Endpoint]) -> tuple[Anchor, ...]:
    """Latents from outside: endpoints' images and an extended video."""
    there = request.there
    images = [Anchor(slot=point.slot, frame=point.frame) for point in points if point.slot]
    if request.begins == "video":
        images = images[1:]
    video = {"slot": VIDEO, "frame": there.start, "num_lat_frames": len(there), "clips": request.clips}
    return (*images, *([Anchor(**video)] if there else []))


def _walk(request: PlanRequest, points: Sequence[Endpoint]) -> Iterator[Section]:
    """All sections: first those of the endpoints, then the gaps between them, each on its own."""
    layout, generate = request.layout, request.schedule.generate
    blocks = []  # first frame and stop of what is known before the gaps are filled
    for index, point in enumerate(points):
        if not point.slot and point.frame >= 0:
            yield Section(makes=((point.frame, point.frame + 1),), positions=(0,), prompt=point.prompt)
        stop = point.frame + 1
        if index:
            limit = points[index + 1].frame if index + 1 < len(points) else request.num_lat_frames
            room = min(limit, stop + generate)
            if stop < room:
                yield _after(layout, point, room)
            stop = room
        blocks.append((point.frame, stop))
    there, last = request.there, request.num_lat_frames
    if request.begins == "video":
        blocks[0] = (0, there.stop)
        there = range(0)
    blocks.append((there.start if there else last, last))
    for (first, start), (stop, end) in zip(blocks, blocks[1:], strict=False):
        if start < stop:
            for section in request.walk.sections(layout, Span(start=start, stop=stop, first=first, last=end)):
                yield replace(section, prompt=_nearest(points, section))


def _after(layout: Layout, point: Endpoint, room: int) -> Section:
    """The section right after an endpoint, up to `room`."""
    stop = point.frame + 1
    section = layout.section((stop, room), range(point.frame, stop), range(room, room), first=True)
    return replace(section, prompt=point.prompt)


def _nearest(points: Sequence[Endpoint], section: Section) -> str | None:
    """The prompt of the endpoint that is nearest in time."""
    start, stop = section.makes[0]
    middle = start + stop - 1  # twice the frame
    after = bisect_left(points, middle, key=lambda point: 2 * point.frame)
    near = points[max(after - 1, 0) : after + 1]
    return min(near, key=lambda point: abs(2 * point.frame - middle)).prompt


def _with_end(sections: list[Section], last: int) -> list[Section]:
    """The end image in the place of the first frame after the video's last section."""
    for index, section in enumerate(sections):
        after = next((i for i, c in enumerate(section.context) if c.positions[0] > section.positions[-1]), None)
        if after is not None and section.makes[-1][1] == last:
            context = list(section.context)
            context[after] = replace(context[after], frames=(END, *context[after].frames[1:]))
            return [*sections[:index], replace(section, context=tuple(context)), *sections[index + 1 :]]
    raise PlanError(
        "An end image needs a section that makes the video's last frame; a key frame or video stands there."
    )


def _with_needs(sections: Iterable[Section]) -> tuple[Section, ...]:
    """The sections with those that made their contexts as their needs."""
    sections, done = list(sections), []
    maker: list[int | None] = [None] * max(stop for section in sections for _, stop in section.makes)
    for index, section in enumerate(sections):
        done.append(replace(section, needs=sorted(section.makers(maker) - {None})))
        for start, stop in section.makes:
            maker[start:stop] = [index] * (stop - start)
    return tuple(done)
