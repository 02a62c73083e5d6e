"""Pinned references: frames, images or whole stretches of a video that sections see whatever their order of importance.

A line each, such as ``0-1.2s`` (that stretch of the video, for every later section), ``8-10s: 0-1.2s`` (for the
sections of 8 to 10 s, to return to a place) or ``image hero as k1`` (a key frame by its name, uncompressed).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ..errors import FramePackError, PlanError, quoted
from ..units import Geometry, Kernel
from .choice import Choice, Pinned, refilled
from .json_fields import slot_of
from .section import Section

MAX_LINES, MAX_TEXT = 100, 10_000  # lines, and characters of all lines together
EXAMPLE = "Write a line such as 8-10s: 0-1.2s, or image NAME as k1."
_TIME = r"([0-9]+(?:\.[0-9]+)?)(?:\s*-\s*([0-9]+(?:\.[0-9]+)?))?\s*s"
_LINE = re.compile(rf"(?:{_TIME}\s*:\s*)?(?:image\s+(\S+)|{_TIME})(?:\s+as\s+k([0-9]{{1,2}}))?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """A slot's name or latent frames that are pinned, the kernel of their slots, and the frames that see them (None:
    all)."""

    what: str | range
    kernel: Kernel | None = None
    during: range | None = None

    @property
    def frames(self) -> tuple[int | str, ...]:
        """One by one."""
        return (self.what,) if isinstance(self.what, str) else tuple(self.what)

    def moved(self, by: int) -> Pin:
        """The pin so many latent frames later, in a video whose first frames are cut."""
        what = self.what if isinstance(self.what, str) else range(self.what.start + by, self.what.stop + by)
        during = self.during and range(self.during.start + by, self.during.stop + by)
        return replace(self, what=what, during=during)

    def acts_on(self, section: Section, there: set[int]) -> bool:
        """Is the section among those that see it, and do its frames exist by then?"""
        inside = self.during is None or any(frame in self.during for frame in section.made)
        return inside and (isinstance(self.what, str) or there.issuperset(self.what))


def read_pins(text: str, fps: float, geometry: Geometry) -> tuple[Pin, ...]:
    """The pins of some lines; empty lines and lines that begin with # are skipped. Raises FramePackError."""
    if not isinstance(text, str) or len(text) > MAX_TEXT or text.count("\n") >= MAX_LINES:
        raise FramePackError(f"Pinned references are at most {MAX_LINES} lines of text; got {quoted(text)}. Use fewer.")
    lines = [line.strip() for line in text.splitlines()]
    return tuple(_pin(line, fps, geometry) for line in lines if line and line[0] != "#")


def _pin(line: str, fps: float, geometry: Geometry) -> Pin:
    match = _LINE.fullmatch(line)
    if match is None:
        raise PlanError(f"The pinned reference {quoted(line)} is not understood. {EXAMPLE}")
    from_, to, image, start, stop, kernel = match.groups()

    def frames(start: str, stop: str | None) -> range:
        first = geometry.latent_frame(float(start), fps)
        after = first + 1 if stop is None else geometry.latent_frame(float(stop), fps)
        if after <= first:
            raise PlanError(f"The pinned reference {quoted(line)} ends before it begins. {EXAMPLE}")
        return range(first, after)

    return Pin(
        what=slot_of(image) if image else frames(start, stop),
        kernel=Kernel.short(int(kernel)) if kernel else None,
        during=frames(from_, to) if from_ else None,
    )


def with_pins(sections: Iterable[Section], pins: Sequence[Pin], there: set[int]) -> Iterator[Section]:
    """Sections in order of generation with the pins that act on them; `there` are the frames that exist before.

    Contexts that latents do not decide are filled at once. Raises PlanError for a pin that no section can see.
    """
    seen: set[Pin] = set()
    for section in sections:
        acting = [pin for pin in pins if pin.acts_on(section, there)] if section.choice else []
        seen.update(acting)
        there = there.union(section.made)
        yield _pinned(section, acting)
    if unseen := [pin for pin in pins if pin not in seen]:
        what = unseen[0].what
        named = quoted(what) if isinstance(what, str) else f"of latent frames {what.start} to {what.stop - 1}"
        raise PlanError(
            f"No section can see the pinned reference {named}: none that it is for is generated after it. Choose other "
            "times, or a schedule of another order."
        )


def _pinned(section: Section, pins: Sequence[Pin]) -> Section:
    if section.choice is None:
        return section
    frames = tuple(Pinned(frame=frame, kernel=pin.kernel) for pin in pins for frame in pin.frames)
    choice = replace(section.choice, pinned=frames)
    chosen = refilled(section, choice, choice.by_time())  # raises where they have no room
    return replace(section, choice=choice) if decided_later(choice) else chosen


def decided_later(choice: Choice) -> bool:
    """Is there anything that latents decide?"""
    return choice.by != "by_time" and len(choice.candidates) > 1
