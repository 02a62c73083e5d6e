"""A prompt timeline: lines such as ``0-2.5s: a red star moves up``, each for a stretch of the video.

Times are seconds. A line's end may be left out (``2.5s: ...`` lasts to the next line, the last one to the end).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise

from ..errors import FramePackError
from ..units import FRAMES_PER_LATENT
from .plan import Plan, Section
from .prompts import Blend, Prompt

MAX_LINES = 500
_LINE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:-\s*(\d+(?:\.\d+)?)\s*)?s?\s*:\s*(.*\S)\s*", re.ASCII)


class TimelineError(FramePackError):
    """A prompt timeline that does not read; it names the line."""

    def __init__(self, number: int, line: str, fault: str):
        super().__init__(f"line {number} of the prompt timeline: {fault}\n  {line[:72]}\nExpected 0-2.5s: what happens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A prompt from `start` to `stop`, in seconds."""

    start: float
    stop: float
    prompt: str


def read(text: str, seconds: float) -> tuple[Stretch, ...]:
    """The stretches of a timeline for a video of so many seconds. Raises TimelineError.

    Lines are in order of time, do not overlap, and leave no gap. Empty lines and those that begin with # count not.
    """
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip() and line.lstrip()[0] != "#"]
    if len(lines) > MAX_LINES:
        raise TimelineError(lines[MAX_LINES][0], lines[MAX_LINES][1], f"more than {MAX_LINES} lines")
    parts = [(n, line, *_times(n, line)) for n, line in lines]
    stretches = []
    for i, (number, line, start, stop, prompt) in enumerate(parts):
        following = parts[i + 1][2] if i + 1 < len(parts) else max(seconds, start)
        stop = following if stop is None else stop
        before = stretches[-1].stop if stretches else 0.0
        if start < before:
            raise TimelineError(number, line, f"{start:g} s comes before {before:g} s, where the line above ends")
        if start > before:
            raise TimelineError(number, line, f"nothing is said of {before:g} to {start:g} s")
        if stop <= start and not (i + 1 == len(parts) and start >= seconds):
            raise TimelineError(number, line, f"it ends at {stop:g} s, and begins at {start:g} s")
        if start >= seconds:
            raise TimelineError(
                number, line, f"it begins at {start:g} s, and the video is {round(seconds, 2):g} s long"
            )
        stretches.append(Stretch(start=start, stop=stop, prompt=prompt))
    return tuple(stretches)


def prompt_at(stretches: tuple[Stretch, ...], seconds: float) -> str | None:
    """The prompt of a moment; the last one lasts on. None for an empty timeline."""
    found = [stretch.prompt for stretch in stretches if stretch.start <= seconds]
    return found[-1] if found else (stretches[0].prompt if stretches else None)


def _times(number: int, line: str) -> tuple[float, float | None, str]:
    match = _LINE.fullmatch(line)
    if match is None:
        raise TimelineError(number, line, "it does not read")
    return float(match[1]), float(match[2]) if match[2] else None, match[3]


def with_prompts(plan: Plan, stretches: tuple[Stretch, ...], fps: float, blend: float = 0.0) -> Plan:
    """The plan with the prompt of each section's middle; what has a prompt of its own, an endpoint's, keeps it.

    Within `blend` seconds around a border the two prompts are blended by how far the middle is across.
    """

    def said(section: Section) -> Prompt | None:
        start, stop = section.makes[0]
        middle = FRAMES_PER_LATENT * (start + stop - 1) / 2 / fps
        return section.prompt or blended_at(stretches, middle, blend)

    return replace(plan, sections=tuple(replace(s, prompt=said(s)) for s in plan.sections))


def blended_at(stretches: tuple[Stretch, ...], seconds: float, blend: float) -> Prompt | None:
    """The prompt of a moment, or the blend of two within `blend` seconds around their border."""
    for before, after in pairwise(stretches):
        weight = (seconds - after.start) / blend + 0.5 if blend else 0.0
        if 0 < weight < 1 and before.prompt != after.prompt:
            return Blend(before=before.prompt, after=after.prompt, weight=round(weight, 3))
    return prompt_at(stretches, seconds)
