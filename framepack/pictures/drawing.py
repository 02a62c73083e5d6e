"""What pictures share: colours, fonts, text that fits, and a palette. Drawn with Pillow, readable at 400 pixels.

A colour stands for a kernel: the more a frame is compressed, the paler it is. Generated frames are orange.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import cache
from math import log2

from PIL import Image, ImageColor, ImageDraw, ImageFont

from ..errors import printable
from ..units import BASE, Kernel

Picture = Image.Image
Draw = ImageDraw.ImageDraw
Colour = str | tuple[int, ...]
Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

WIDTH, MARGIN = 960, 24  # pixels
TITLE, TEXT, SMALL, SMALLEST = 36, 28, 24, 12  # sizes of letters
MAX_TEXT = 400  # characters of a line that are measured; no more fit at the smallest size
PAPER, INK, FAINT, LINE = "#ffffff", "#22262b", "#666c74", "#ffffff"
GENERATED, IMAGE, BLANK = "#e8590c", "#343a40", "#e9ecef"
_STRONG, _PALE = (11, 83, 148), (190, 222, 246)  # of k1, and of 64 latent frames in one token


def blank(height: int) -> tuple[Picture, Draw]:
    """An empty picture of a height in pixels."""
    picture = Image.new("RGB", (WIDTH, height), PAPER)
    return picture, ImageDraw.Draw(picture)


def colour_of(kernel: Kernel) -> tuple[int, ...]:
    """The colour of a kernel, by the logarithm of the values in one of its tokens."""
    return _between(_STRONG, _PALE, min(log2(kernel.size / BASE.size) / 9, 1.0))


def in_palette(picture: Picture) -> Picture:
    """A picture in a palette of its colours and of letters' shades: a third of a PNG's time and size."""
    return picture.quantize(palette=_palette(), dither=Image.Dither.NONE)


@cache
def _palette() -> Picture:
    letters = [_between(colour, PAPER, i / 15) for colour in (INK, FAINT) for i in range(16)]
    kernels = [_between(_STRONG, _PALE, i / 127) for i in range(128)]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for c in (*letters, *kernels, GENERATED, IMAGE, BLANK, LINE) for part in _rgb(c)])
    return palette


def _rgb(colour: Colour) -> tuple[int, ...]:
    return ImageColor.getrgb(colour)[:3] if isinstance(colour, str) else colour


def _between(one: Colour, other: Colour, share: float) -> tuple[int, ...]:
    """The colour at a share of the way from one to another."""
    return tuple(round(a + (b - a) * share) for a, b in zip(_rgb(one), _rgb(other), strict=True))


def write(draw: Draw, at: tuple[float, float], text: str, colour: Colour, size: int, room: float | None = None) -> None:
    """One line of text at a place; in `room` pixels it gets smaller, and then shorter."""
    text = one_line(text)
    if room is not None:
        while size > SMALLEST and length(draw, text, size) > room:
            size -= 2
        text = cut(draw, text, room, size)
    draw.text(at, text, colour, font(size))


def one_line(text: str) -> str:
    """A text's beginning on one line, every character of which can be drawn."""
    return printable(" ".join(text[:MAX_TEXT].split()), MAX_TEXT)


def cut(draw: Draw, text: str, room: float, size: int) -> str:
    """The longest beginning of a line that fits into `room` pixels."""
    if length(draw, text, size) <= room:
        return text
    num = bisect_right(range(len(text)), room, key=lambda n: length(draw, text[:n] + "…", size)) - 1
    return text[: max(num, 0)].rstrip() + "…"


def length(draw: Draw, text: str, size: int) -> float:
    """The length of a line in pixels."""
    return draw.textlength(text, font(size))


@cache
def font(size: int) -> Font:
    """Pillow's own font."""
    return ImageFont.load_default(size)
