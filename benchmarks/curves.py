"""Curves as a small PNG: error, on a logarithmic axis, over speed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIZE, LEFT, BOTTOM, TOP, RIGHT = (760, 420), 70, 44, 16, 16
COLOURS = ("#c0392b", "#2980b9", "#27ae60", "#8e44ad", "#d68910", "#7f8c8d")
SPEEDS = (1.0, 3.0)
PERCENT = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20)


def draw(path: Path, curves: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Write a PNG of (speed, error as a share) by name."""
    image = Image.new("RGB", SIZE, "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    errors = [100 * error for points in curves.values() for _, error in points]
    low = max((p for p in PERCENT if p <= min(errors)), default=PERCENT[0])
    high = min((p for p in PERCENT if p >= max(errors)), default=PERCENT[-1])

    def place(speed: float, percent: float) -> tuple[float, float]:
        across = (speed - SPEEDS[0]) / (SPEEDS[1] - SPEEDS[0])
        up = math.log(percent / low) / math.log(high / low)
        return LEFT + across * (SIZE[0] - LEFT - RIGHT), SIZE[1] - BOTTOM - up * (SIZE[1] - BOTTOM - TOP)

    for percent in (p for p in PERCENT if low <= p <= high):
        pen.line([place(SPEEDS[0], percent), place(SPEEDS[1], percent)], fill="#dddddd")
        pen.text((LEFT - 8, place(1, percent)[1]), f"{percent:g} %", fill="black", font=font, anchor="rm")
    for tenths in range(10, 31, 5):
        x, y = place(tenths / 10, low)
        pen.text((x, y + 6), f"{tenths / 10:g}x", fill="black", font=font, anchor="mt")
    for i, ((name, points), colour) in enumerate(zip(curves.items(), COLOURS, strict=False)):
        dots = [place(speed, 100 * error) for speed, error in points if SPEEDS[0] <= speed <= SPEEDS[1]]
        pen.line(dots, fill=colour, width=2)
        for x, y in dots:
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
        pen.text(
            (SIZE[0] - RIGHT, SIZE[1] - BOTTOM - 20 * (len(curves) - i)), name, fill=colour, font=font, anchor="rm"
        )
    image.quantize(32).save(path, optimize=True)
