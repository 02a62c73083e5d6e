"""Where a plan's latent frames lie in time: as one clip, or clip by clip where sections decode on their own."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

from .plan import Plan


def middle_frames(plan: Plan) -> list[float]:
    """The frame in the middle of each section, or of the first range that it makes."""
    temporal = plan.geometry.temporal
    if not plan.geometry.sections_are_clips:
        return [temporal * (start + stop - 1) / 2 for start, stop in (section.makes[0] for section in plan.sections)]
    begins = dict(zip((clip.start for clip in plan.clips), _frames_before(plan), strict=False))
    made = (section.makes[0] for section in plan.sections)
    return [begins[start] + plan.geometry.pixel_frames(stop - start) / 2 for start, stop in made]


def place_of(plan: Plan, frame: float) -> float:
    """The place of a decoded frame among the latent frames."""
    temporal = plan.geometry.temporal
    if not plan.geometry.sections_are_clips:
        return (frame + temporal - 1) / temporal if frame else 0.0
    before, clips = _frames_before(plan), plan.clips
    index = min(bisect_right(before, frame) - 1, len(clips) - 1)
    share = (frame - before[index]) / plan.geometry.pixel_frames(len(clips[index]))
    return clips[index].start + share * len(clips[index])


def _frames_before(plan: Plan) -> list[int]:
    """The frames before each clip, and of all of them."""
    return list(accumulate((plan.geometry.pixel_frames(len(clip)) for clip in plan.clips), initial=0))
