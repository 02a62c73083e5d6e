"""What stands before a video whose sections are clips: latents that its sections see and that are no part of it.

Such a video begins with its first section, whose first latent is a picture. A start image is context only: it stands in
the far past of every section, and as the last latent of a still clip where the frame before the first would be. In text
to video the far past is the first section's first latent, once there is one; in a video that is extended, its first
frame, encoded on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from .request import FIRST, START, STILL, PlanRequest
from .section import Context, Frame, Section


def with_beginning(sections: Iterable[Section], request: PlanRequest) -> list[Section]:
    """The sections with what stands before the video in their contexts."""
    schedule, done = request.schedule, []
    far, near, begun = len(schedule.far_past), len(schedule.past), False
    for section in sections:
        tail = bool(section.context and section.context[0].tail)  # in front of the others, where it is in the past
        first = tail if schedule.tail_side == "past" else 0
        begins = section.makes[0][0] == 0

        def pinned(frames: Sequence[Frame], begun: bool = begun) -> list[Frame]:
            return [_start(frame, request, begun) if i == 0 else frame for i, frame in enumerate(frames)]

        def still(frames: Sequence[Frame], begins: bool = begins) -> list[Frame]:
            return _with_still(frames, begins) if request.has_still else list(frames)

        contexts = _changed(section.context, range(first, first + far), pinned)
        contexts = _changed(contexts, range(first + far, first + far + near), still)
        done.append(replace(section, context=tuple(contexts)))
        begun = begun or begins
    return done


def _start(frame: Frame, request: PlanRequest, begun: bool) -> Frame:
    """What the far past shows where it would show the video's beginning, which has `begun` where frame 0 is there."""
    if request.begins == "video":
        return FIRST if frame == 0 else frame
    if frame is not None:
        return frame
    if request.start:
        return START
    return 0 if begun else None


def _with_still(frames: Sequence[Frame], begins: bool) -> list[Frame]:
    """Frames of the near past with the still image before frame 0; `begins`: the section makes frame 0."""
    found = list(frames)
    before = found.index(0) - 1 if 0 in found else len(found) - 1 if begins else -1
    if before >= 0 and found[before] is None:
        found[before] = STILL
    return found


def _changed(
    contexts: Sequence[Context], places: range, change: Callable[[Sequence[Frame]], list[Frame]]
) -> list[Context]:
    """The contexts with the frames of neighbouring ones changed together."""
    within = [i for i in places if i < len(contexts)]
    frames = iter(change([frame for i in within for frame in contexts[i].frames]))
    return [
        replace(context, frames=tuple(next(frames) for _ in context.frames)) if i in within else context
        for i, context in enumerate(contexts)
    ]
