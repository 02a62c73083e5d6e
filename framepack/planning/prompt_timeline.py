"""A prompt timeline: lines such as ``0-2.5s: a red star moves up``, each for a stretch of the video.

Times are seconds. A line's end may be left out (``2.5s: ...`` lasts to the next line, the last one to the end).
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from itertools import pairwise

from ..errors import FramePackError, quoted
from .plan import Plan, Section
from .prompts import Blend, Prompt, checked

MAX_LINES = 500
MAX_TEXT = 200_000  # characters of all lines together
MAX_BLEND = 60  # seconds
MAX_TIMES = 40  # characters of a line before its colon
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_TIMES = re.compile(rf"{_NUMBER}\s*(?:-\s*{_NUMBER}\s*)?(s?)", re.ASCII)


class TimelineError(FramePackError):
    """A prompt timeline that is not valid; it names the line."""

    def __init__(self, number: int, line: str, fault: str):
        example = "Write a line such as 0-2.5s: what happens."
        super().__init__(f"Line {number} of the prompt timeline: {fault}.\n  {quoted(line.strip())}\n{example}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A prompt from `start` to `stop`, in seconds."""

    start: float
    stop: float
    prompt: str


def read(text: str, seconds: float) -> tuple[Stretch, ...]:
    """The stretches of a timeline for a video of so many seconds. Raises TimelineError, and PlanError for a prompt.

    Lines are in order of time, do not overlap and leave no gap. Empty lines and lines that begin with # are skipped.
    """
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        what = f"{len(text)}" if isinstance(text, str) else quoted(text)
        raise FramePackError(f"The prompt timeline is text of at most {MAX_TEXT} characters; got {what}. Shorten it.")
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip() and line.lstrip()[0] != "#"]
    if len(lines) > MAX_LINES:
        raise TimelineError(
            lines[MAX_LINES][0], lines[MAX_LINES][1], f"the timeline has at most {MAX_LINES} lines; got {len(lines)}"
        )
    parts = [(n, line, *_times(n, line)) for n, line in lines]
    stretches = []
    for i, (number, line, start, stop, prompt) in enumerate(parts):
        following = parts[i + 1][2] if i + 1 < len(parts) else max(seconds, start)
        stop = following if stop is None else stop
        before = stretches[-1].stop if stretches else 0.0
        if start < before:
            raise TimelineError(
                number, line, f"it begins at {start:g} s, before {before:g} s, where the line above ends"
            )
        if start > before:
            raise TimelineError(number, line, f"no prompt covers {before:g}-{start:g} s")
        if stop <= start and not (i + 1 == len(parts) and start >= seconds):
            raise TimelineError(number, line, f"it ends at {stop:g} s but begins at {start:g} s")
        if start >= seconds:
            raise TimelineError(number, line, f"it begins at {start:g} s; the video is {round(seconds, 2):g} s long")
        stretches.append(Stretch(start=start, stop=stop, prompt=prompt))
    return tuple(stretches)


def prompt_at(stretches: tuple[Stretch, ...], seconds: float) -> str | None:
    """The prompt of a moment; the last one lasts on. None for an empty timeline."""
    index = bisect_right(stretches, seconds, key=lambda stretch: stretch.start)
    return stretches[max(index - 1, 0)].prompt if stretches else None


def _times(number: int, line: str) -> tuple[float, float | None, str]:
    """Start, end or None, and prompt of a line. Raises TimelineError."""
    head, colon, prompt = line.partition(":")
    match = _TIMES.fullmatch(head.strip()) if len(head) <= MAX_TIMES else None
    if not colon or match is None:
        raise TimelineError(number, line, "it does not begin with times in seconds and a colon")
    start, stop, unit = match.groups()
    if not unit and re.match(r"[0-9]", prompt):
        raise TimelineError(number, line, "timecodes such as 0:05 are not supported; times are seconds")
    if not prompt.strip():
        raise TimelineError(number, line, "it has no prompt after the colon")
    return float(start), float(stop) if stop else None, checked(prompt.strip())


def with_prompts(plan: Plan, stretches: tuple[Stretch, ...], fps: float, blend: float = 0.0) -> Plan:
    """The plan with each section's prompt, taken at the section's middle; an endpoint's own prompt stays.

    Within `blend` seconds around a border the two prompts are blended by how far the middle is across it. Raises
    FramePackError.
    """
    if not 0 <= blend <= MAX_BLEND:
        raise FramePackError(f"The blend is 0 to {MAX_BLEND} seconds; got {quoted(blend)}. Try 1.")

    def prompt_of(section: Section) -> Prompt | None:
        start, stop = section.makes[0]
        middle = plan.geometry.temporal * (start + stop - 1) / 2 / fps
        return section.prompt or blended_at(stretches, middle, blend)

    return replace(plan, sections=tuple(replace(s, prompt=prompt_of(s)) for s in plan.sections))


def blended_at(stretches: tuple[Stretch, ...], seconds: float, blend: float) -> Prompt | None:
    """The prompt of a moment, or the blend of two within `blend` seconds around their border."""
    first = bisect_right(stretches, seconds - blend / 2, lo=1, key=lambda stretch: stretch.start)
    stop = bisect_left(stretches, seconds + blend / 2, lo=1, key=lambda stretch: stretch.start)
    for before, after in pairwise(stretches[first - 1 : stop]):
        if before.prompt == after.prompt:
            continue
        weight = round((seconds - after.start) / blend + 0.5, 3)
        if 0 < weight < 1:
            return Blend(before=before.prompt, after=after.prompt, weight=weight)
        return after.prompt if weight else before.prompt
    return prompt_at(stretches, seconds)
