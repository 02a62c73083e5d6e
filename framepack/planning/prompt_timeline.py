"""A prompt timeline: lines such as ``0-2.5s: a red star moves up``, each for a stretch of the video.

Times are seconds or timecodes. A line's end may be left out (``2.5s: ...`` lasts to the next line, the last one to
the end). Several prompts of one line stand in brackets: ``[0s: ...] [0:02: ...]``, or ``[0:02] ...`` for a line's rest.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

from ..errors import FramePackError, quoted
from .plan import Plan, Section
from .prompts import Blend, Prompt, checked
from .references import with_references
from .timecodes import COLONS, TimecodeError, read_span
from .times import middle_frames

MAX_LINES = 500
MAX_TEXT = 200_000  # characters of all lines together
MAX_BLEND = 60  # seconds
EXAMPLES = "Write a line such as 0-2.5s: what happens, or 0:00-0:02: what happens."


class TimelineError(FramePackError):
    """A prompt timeline that is not valid; it names the line."""

    def __init__(self, number: int, line: str, fault: str):
        super().__init__(f"Line {number} of the prompt timeline: {fault}.\n  {quoted(line.strip())}\n{EXAMPLES}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A prompt from `start` to `stop`, in seconds; None is the sampler's own.

    In the text its times stand at `at`, and the prompt at `told`.
    """

    start: float
    stop: float
    prompt: str | None
    at: tuple[int, int] = field(default=(0, 0), compare=False)
    told: tuple[int, int] = field(default=(0, 0), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A prompt as it is written, before its end is known."""

    number: int
    line: str
    start: float
    stop: float | None
    prompt: str
    at: tuple[int, int]
    told: tuple[int, int]
    bracketed: bool


def read(text: str, seconds: float) -> tuple[Stretch, ...]:
    """The stretches of a timeline for a video of so many seconds. Raises TimelineError, and PlanError for a prompt.

    Lines are in order of time, do not overlap and leave no gap; a first prompt in brackets may begin later. Empty lines
    and lines that begin with # are skipped.
    """
    entries = list(_entries(text))
    stretches: list[Stretch] = []
    for i, entry in enumerate(entries):
        last = i + 1 == len(entries)
        following = max(seconds, entry.start) if last else entries[i + 1].start
        stop = following if entry.stop is None else entry.stop
        if not stretches and entry.bracketed and entry.start > 0:
            stretches.append(Stretch(start=0.0, stop=entry.start, prompt=None))
        if fault := _fault(entry, stretches[-1].stop if stretches else 0.0, stop, seconds, last):
            raise TimelineError(entry.number, entry.line, fault)
        stretches.append(Stretch(start=entry.start, stop=stop, prompt=entry.prompt, at=entry.at, told=entry.told))
    return tuple(stretches)


def _fault(entry: _Entry, before: float, stop: float, seconds: float, last: bool) -> str | None:
    """What is wrong with an entry's place in time."""
    if entry.start < before:
        return f"it begins at {entry.start:g} s, before {before:g} s, where the one before it ends"
    if entry.start > before:
        return f"no prompt covers {before:g}-{entry.start:g} s"
    if stop <= entry.start and not (last and entry.start >= seconds):
        return f"it ends at {stop:g} s but begins at {entry.start:g} s"
    if entry.start >= seconds:
        return f"it begins at {entry.start:g} s; the video is {round(seconds, 2):g} s long"
    return None


def prompt_at(stretches: tuple[Stretch, ...], seconds: float) -> str | None:
    """The prompt of a moment; the last one lasts on. None for an empty timeline."""
    index = bisect_right(stretches, seconds, key=lambda stretch: stretch.start)
    return stretches[max(index - 1, 0)].prompt if stretches else None


def _entries(text: str) -> Iterator[_Entry]:
    """All prompts of a text. Raises TimelineError."""
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        what = f"{len(text)}" if isinstance(text, str) else quoted(text)
        raise FramePackError(f"The prompt timeline is text of at most {MAX_TEXT} characters; got {what}. Shorten it.")
    offset, count = 0, 0
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if line.strip() and line.lstrip()[0] != "#":
            try:
                for start, stop, times, told in _parts(line.rstrip()):
                    count += 1
                    if count > MAX_LINES:
                        raise TimecodeError(f"the timeline has at most {MAX_LINES} prompts")
                    yield _Entry(
                        number=number,
                        line=line,
                        start=start,
                        stop=stop,
                        prompt=checked(line[slice(*told)]),
                        at=(offset + times[0], offset + times[1]),
                        told=(offset + told[0], offset + told[1]),
                        bracketed=line.lstrip()[0] == "[",
                    )
            except TimecodeError as fault:
                raise TimelineError(number, line, fault.fault) from fault
        offset += len(line)


_Part = tuple[float, float | None, tuple[int, int], tuple[int, int]]


def _parts(line: str) -> Iterator[_Part]:
    """Start, end or None, and where times and prompt stand, of each prompt of a line. Raises TimecodeError."""
    at = len(line) - len(line.lstrip())
    if line[at] != "[":
        start, stop, end = read_span(line, at)
        yield start, stop, (at, end), _told(line, end, len(line), colon=True)
        return
    while at < len(line):
        if line[at] != "[":
            raise TimecodeError(f"there is text outside of the brackets: {quoted(line[at:])}")
        start, stop, end = read_span(line, at + 1)
        where, closing = (at + 1, end), _closing(line, at)
        if line[end:closing].strip():
            yield start, stop, where, _told(line, end, closing, colon=True)
            at = closing + 1
            at += len(line[at:]) - len(line[at:].lstrip())
        else:  # [times] and the rest of the line
            yield start, stop, where, _told(line, closing + 1, len(line), colon=False)
            return


def _closing(line: str, opening: int) -> int:
    """Where the bracket that opens there closes; a prompt may hold brackets of its own. Raises TimecodeError."""
    depth = 0
    for found in re.finditer(r"[\[\]]", line[opening:]):
        depth += 1 if found[0] == "[" else -1
        if depth == 0:
            return opening + found.start()
    raise TimecodeError("a bracket is not closed on its line")


def _told(line: str, start: int, stop: int, *, colon: bool) -> tuple[int, int]:
    """Where the prompt after its times stands, behind a colon. Raises TimecodeError."""
    start += len(line[start:stop]) - len(line[start:stop].lstrip())
    if start < stop and line[start] in COLONS:
        start += 1
    elif colon:
        raise TimecodeError("it does not begin with times and a colon")
    told = line[start:stop].strip()
    if not told:
        raise TimecodeError("it has no prompt after the times")
    start = line.index(told, start)
    return start, start + len(told)


def with_prompts(
    plan: Plan, stretches: tuple[Stretch, ...], fps: float, blend: float = 0.0, begins: float = 0.0
) -> Plan:
    """The plan with each section's prompt, taken at the section's middle; an endpoint's own prompt stays.

    Within `blend` seconds around a border the two prompts are blended by how far the middle is across it. The
    timeline's 0 is at `begins` seconds of the plan. Raises FramePackError.
    """
    if not 0 <= blend <= MAX_BLEND:
        raise FramePackError(f"The blend is 0 to {MAX_BLEND} seconds; got {quoted(blend)}. Try 1.")

    def prompt_of(section: Section, middle: float) -> Prompt | None:
        return section.prompt or blended_at(stretches, middle / fps - begins, blend)

    sections = zip(plan.sections, middle_frames(plan), strict=True)
    told = [replace(section, prompt=prompt_of(section, middle)) for section, middle in sections]
    return replace(plan, sections=tuple(with_references(told)))


def blended_at(stretches: tuple[Stretch, ...], seconds: float, blend: float) -> Prompt | None:
    """The prompt of a moment, or the blend of two within `blend` seconds around their border."""
    first = bisect_right(stretches, seconds - blend / 2, lo=1, key=lambda stretch: stretch.start)
    stop = bisect_left(stretches, seconds + blend / 2, lo=1, key=lambda stretch: stretch.start)
    for before, after in pairwise(stretches[first - 1 : stop]):
        if before.prompt == after.prompt or before.prompt is None or after.prompt is None:
            continue
        weight = round((seconds - after.start) / blend + 0.5, 3)
        if 0 < weight < 1:
            return Blend(before=before.prompt, after=after.prompt, weight=weight)
        return after.prompt if weight else before.prompt
    return prompt_at(stretches, seconds)
