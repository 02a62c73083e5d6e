"""The drift monitor: finished sections against the video's start, and those that leave the band of the ones before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import dist, isfinite
from typing import Any

from ..errors import FramePackError, quoted

MAX_SECTIONS = 1000
# Each measure, its unit, and how far a section may lie outside the range of the sections before it.
MEASURES = {"colour": ("Lab", 3.0), "contrast": ("%", 0.12), "sharpness": ("%", 0.2), "motion": ("%", 0.75)}
NUM_BEFORE = 2  # sections that make a band


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One measure of all finished sections in order of generation: None where a section has no value.

    `bands` are the least and the greatest value that raise no flag, None where there are too few sections before.
    """

    name: str
    unit: str
    values: tuple[float | None, ...]
    bands: tuple[tuple[float, float] | None, ...]

    @property
    def flagged(self) -> list[int]:
        """The sections, from 0, that leave the band."""
        return [
            i
            for i, (value, band) in enumerate(zip(self.values, self.bands, strict=True))
            if value is not None and band is not None and not band[0] <= value <= band[1]
        ]


def drifts(looks: object) -> list[Drift]:
    """Every measure of sections' looks, as the page has them: `own`, and `start` where known. Raises FramePackError.

    Without the start, and in motion, which a single image has not, the first section takes its place.
    """
    if not isinstance(looks, list) or not 0 < len(looks) <= MAX_SECTIONS:
        raise FramePackError(f"The drift monitor takes 1 to {MAX_SECTIONS} sections.")
    own = [None if look is None else _look(look, "own") for look in looks]
    starts = [_look(look, "start") for look in looks if look is not None and look.get("start")]
    known = [look for look in own if look is not None]
    if not known:
        raise FramePackError("No section has been measured. Install the packages of pip install '.[metrics]'.")
    start = starts[0] if starts else known[0]
    found = []
    for name, (unit, slack) in MEASURES.items():
        base = known[0] if name == "motion" else start
        values = tuple(None if look is None else _change(name, look, base) for look in own)
        found.append(Drift(name=name, unit=unit, values=values, bands=_bands(values, slack)))
    return found


def advice(found: Sequence[Drift]) -> str:
    """Which sections leave the band, in what, and what to try."""
    by_section: dict[int, list[str]] = {}
    for drift in found:
        for index in drift.flagged:
            by_section.setdefault(index, []).append(drift.name)
    if not by_section:
        return "No section leaves the band of the sections before it."
    named = "; ".join(f"section {index + 1} in {', '.join(names)}" for index, names in sorted(by_section.items()))
    return f"Leaves the band of the sections before it: {named}. Try another take of it, or FramePack Repair."


def _bands(values: Sequence[float | None], slack: float) -> tuple[tuple[float, float] | None, ...]:
    before: list[float] = []
    bands: list[tuple[float, float] | None] = []
    for value in values:
        bands.append((min(before) - slack, max(before) + slack) if len(before) >= NUM_BEFORE else None)
        if value is not None:
            before.append(value)
    return tuple(bands)


def _change(name: str, look: Mapping[str, Any], start: Mapping[str, Any]) -> float | None:
    """The distance of colours, or the change as a share of the start's."""
    if name == "colour":
        return dist(look[name], start[name])
    if look[name] is None or start[name] is None or start[name] < 1e-6:
        return None
    return look[name] / start[name] - 1


def _look(look: object, which: str) -> Mapping[str, Any]:
    """A look from the page. Raises FramePackError."""
    found = look.get(which) if isinstance(look, Mapping) else None
    if isinstance(found, Mapping) and found.keys() == MEASURES.keys():
        colour, others = found["colour"], [found[name] for name in MEASURES if name != "colour"]
        coloured = isinstance(colour, list) and len(colour) == 3 and all(map(_number, colour))
        if coloured and all(other is None or _number(other) for other in others):
            return found
    raise FramePackError(f"A section's look has {', '.join(MEASURES)}; got {quoted(found)}.")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
