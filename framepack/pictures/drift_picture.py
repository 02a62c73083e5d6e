"""The picture of the drift monitor: a small curve for each measure over finished sections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .drawing import BLANK, FAINT, INK, MARGIN, SMALL, WIDTH, Draw, Picture, blank, length, write

HEIGHT, TITLE_HEIGHT, GAP = 120, 34, 24
LINE, FLAG, DOT = "#1864ab", "#c92a2a", 5


class Curve(Protocol):
    """One measure over sections."""

    @property
    def name(self) -> str:
        """The measure."""
        ...

    @property
    def unit(self) -> str:
        """Its unit; % for a share."""
        ...

    @property
    def values(self) -> Sequence[float | None]:
        """By section."""
        ...

    @property
    def bands(self) -> Sequence[tuple[float, float] | None]:
        """The least and the greatest value that raise no flag."""
        ...

    @property
    def flagged(self) -> Sequence[int]:
        """The sections that leave the band."""
        ...


def draw_drift(curves: Sequence[Curve]) -> Picture:
    """Two curves side by side: the band in grey, a section that leaves it in red."""
    rows = -(-len(curves) // 2)
    picture, draw = blank(MARGIN + rows * (TITLE_HEIGHT + HEIGHT + GAP))
    width = (WIDTH - 3 * MARGIN) / 2
    for i, curve in enumerate(curves):
        left = MARGIN + (width + MARGIN) * (i % 2)
        top = MARGIN / 2 + (TITLE_HEIGHT + HEIGHT + GAP) * (i // 2)
        _curve(draw, curve, (left, top), width)
    return picture


def _curve(draw: Draw, curve: Curve, at: tuple[float, float], width: float) -> None:
    left, top = at
    known = [value for value in curve.values if value is not None]
    write(draw, at, curve.name, INK, SMALL)
    last = f"{known[-1]:.0%}" if known and curve.unit == "%" else f"{known[-1]:.1f}" if known else "no value"
    write(draw, (left + width - length(draw, last, SMALL), top), last, FLAG if curve.flagged else FAINT, SMALL)
    top += TITLE_HEIGHT
    edges = [*known, *(edge for band in curve.bands if band for edge in band), 0.0]
    low, high = min(edges), max(edges)
    step = width / max(len(curve.values), 1)

    def y(value: float) -> float:
        return top + HEIGHT * (1 - (value - low) / ((high - low) or 1.0))

    for i, band in enumerate(curve.bands):
        if band:
            draw.rectangle((left + step * i, y(band[1]), left + step * (i + 1), y(band[0])), BLANK)
    draw.line((left, y(0.0), left + width, y(0.0)), FAINT)
    points = [(left + step * (i + 0.5), y(value)) for i, value in enumerate(curve.values) if value is not None]
    draw.line(points, LINE, 3)
    flagged = set(curve.flagged)
    for i, value in enumerate(curve.values):
        if value is not None:
            x, colour, size = left + step * (i + 0.5), FLAG if i in flagged else LINE, DOT + 3 * (i in flagged)
            draw.ellipse((x - size, y(value) - size, x + size, y(value) + size), colour)
