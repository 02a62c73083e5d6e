"""Pictures of a schedule and of a plan, drawn with Pillow, readable on a node of 400 pixels.

A colour stands for a kernel: the more a frame is compressed, the paler it is. What is generated is orange.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from math import floor, log2, log10

from PIL import Image, ImageColor, ImageDraw, ImageFont

from ..planning.costs import LAT_FRAMES_PER_MINUTE, against_full
from ..planning.plan import Plan, Section
from ..schedule.grammar import Group, Schedule, count_tokens
from ..units import BASE, FRAMES_PER_LATENT, PIXELS_PER_LATENT, Kernel

Picture = Image.Image
Draw = ImageDraw.ImageDraw
Colour = str | tuple[int, ...]

WIDTH, MARGIN = 960, 24  # pixels
TITLE, TEXT, SMALL = 36, 28, 24  # sizes of letters
CELL, BAR = 104, 44  # height of a frame in the strip, and of a group's row
FULL = 32  # frames of a group that are drawn in full
ROW, MAX_ROWS = 40, 24  # a plan's rows: their height, and how many are drawn
TOP, LEFT, HEADING = 150, MARGIN + 52, 36  # where they begin, and the height of a prompt above one
PAPER, INK, FAINT, LINE = "#ffffff", "#22262b", "#666c74", "#ffffff"
MADE, THERE, BLANK = "#e8590c", "#343a40", "#e9ecef"
_STRONG, _PALE = (11, 83, 148), (190, 222, 246)  # of k1, and of 64 latent frames in one token


def colour_of(kernel: Kernel) -> tuple[int, ...]:
    """The colour of a kernel, by the logarithm of what one token of it stands for."""
    return _between(_STRONG, _PALE, min(log2(kernel.size / BASE.size) / 9, 1.0))


def in_palette(picture: Picture) -> Picture:
    """A drawing of this module in a palette of its colours and of letters' shades: a third of a PNG's time and size."""
    return picture.quantize(palette=_palette(), dither=Image.Dither.NONE)


@cache
def _palette() -> Picture:
    letters = [_between(colour, PAPER, i / 15) for colour in (INK, FAINT) for i in range(16)]
    kernels = [_between(_STRONG, _PALE, i / 127) for i in range(128)]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for c in (*letters, *kernels, MADE, THERE, BLANK, LINE) for part in _rgb(c)])
    return palette


def _rgb(colour: Colour) -> tuple[int, ...]:
    return ImageColor.getrgb(colour)[:3] if isinstance(colour, str) else colour


def _between(one: Colour, other: Colour, share: float) -> tuple[int, ...]:
    """The colour at a share of the way from one to another."""
    return tuple(round(a + (b - a) * share) for a, b in zip(_rgb(one), _rgb(other), strict=True))


def draw_schedule(schedule: Schedule, height: int, width: int) -> Picture:
    """A schedule in video time, its tokens on a latent grid of height by width, and what they save (figure 1)."""
    tokens = count_tokens(schedule, height, width)
    groups = zip(schedule.groups, tokens.groups, strict=True)
    rows = [(f"{group.num_lat_frames} x {group.kernel}", count, colour_of(group.kernel)) for group, count in groups]
    rows.append((f"{schedule.generate} generated", tokens.generated, MADE))
    said = _summary(schedule, height, width)
    picture = Image.new("RGB", (WIDTH, 180 + CELL + 40 + BAR * len(rows) + 38 * len(said)), PAPER)
    draw = ImageDraw.Draw(picture)
    _title(draw, str(schedule))
    _strip(draw, schedule, 112)
    top = 112 + CELL + 60
    for text, count, colour in rows:
        _bar(draw, top, text, count, count / max(tokens.total, 1), colour)
        top += BAR
    for i, line in enumerate(said):
        draw.text((MARGIN, top + 14 + 38 * i), line, INK, _font(TEXT))
    return picture


def _summary(schedule: Schedule, height: int, width: int) -> list[str]:
    """Totals, the generated section's share, and the cost of a step against full context."""
    tokens = count_tokens(schedule, height, width)
    share = tokens.generated / tokens.total
    size = f"{width * PIXELS_PER_LATENT} x {height * PIXELS_PER_LATENT}"
    frames = sum(group.num_lat_frames for group in schedule.groups)
    own, minute = (against_full(schedule, height, width, num) for num in (None, LAT_FRAMES_PER_MINUTE))
    return [
        f"{tokens.context} context + {tokens.generated} generated = {tokens.total} tokens",
        f"at {size}; {share:.0%} of them are the generated section",
        f"a step costs {_times(own)} less than with these {frames} frames in full,",
        f"{_times(minute)} less than with a minute of history in full",
    ]


def _times(ratio: float) -> str:
    """How many times, for people."""
    return f"{ratio:,.0f} times" if ratio >= 100 else f"{ratio:.3g} times"


def _strip(draw: Draw, schedule: Schedule, top: int) -> None:
    """The frames of all groups in video time, each divided as its tokens divide it, with kernels above."""
    parts = list(_parts(schedule))
    step = min((WIDTH - 2 * MARGIN) / sum(map(_shown, parts)), CELL / 2)
    left, free = float(MARGIN), 0.0  # where the next group stands, and where the next label may
    for part in parts:
        length = _shown(part) * step
        if isinstance(part, Group):
            _tokens(draw, part, left, top, length / part.num_lat_frames)
        elif part:
            draw.rectangle((left, top, left + length, top + CELL), MADE, LINE)
        else:
            draw.text((left + length / 2, top + CELL / 2), "...", FAINT, _font(TEXT), anchor="mm")
        name = str(part.kernel) if isinstance(part, Group) else f"g{part}" if part else "x"
        if left >= free and draw.textlength(name, _font(SMALL)) <= max(length, 30):
            draw.text((left, top - 32), name, INK, _font(SMALL))
            free = left + draw.textlength(name, _font(SMALL)) + 4
        left += length
    ends = {"td": "older frames are deleted", "ta": "older frames are appended", "tc": "older frames are averaged"}
    said = f"{schedule.sampling}; {ends[schedule.tail]}"
    if any(group.num_lat_frames > FULL for group in schedule.groups):
        said += f"; groups of more than {FULL} frames are drawn shorter"
    draw.text((MARGIN, top + CELL + 8), said, FAINT, _font(SMALL))


def _shown(part: Group | int) -> float:
    """The length of a part in the strip, in frames: beyond FULL only its logarithm counts."""
    frames = part.num_lat_frames if isinstance(part, Group) else part or 2
    return frames if frames <= FULL else FULL * (1 + log2(frames / FULL) / 2)


def _parts(schedule: Schedule) -> Iterator[Group | int]:
    """Groups, what is generated as a number, and 0 for a skip, in video time."""
    yield from schedule.far_past
    if schedule.far_past:
        yield 0
    yield from schedule.past
    yield schedule.generate
    yield from schedule.future
    if schedule.far_future:
        yield 0
    yield from schedule.far_future


def _tokens(draw: Draw, group: Group, left: float, top: int, step: float) -> None:
    right, kernel = left + group.num_lat_frames * step, group.kernel
    draw.rectangle((left, top, right, top + CELL), colour_of(kernel))
    if kernel.t * step >= 4:  # else lines would cover it
        for frame in range(0, group.num_lat_frames + 1, kernel.t):
            draw.line((left + frame * step, top, left + frame * step, top + CELL), LINE)
    rows = max(CELL // (6 * kernel.h), 1)  # a schematic picture of the latent rows
    for row in range(rows + 1):
        draw.line((left, top + CELL * row / rows, right, top + CELL * row / rows), LINE)


def _bar(draw: Draw, top: int, text: str, count: int, share: float, colour: Colour) -> None:
    left, room = 250, WIDTH - 250 - MARGIN - 120
    draw.text((MARGIN, top), text, INK, _fitting(draw, text, left - MARGIN - 10, TEXT))
    draw.rectangle((left, top + 4, left + max(room * share, 2), top + 32), colour)
    draw.text((left + room * share + 12, top), str(count), INK, _font(TEXT))


def draw_plan(plan: Plan, fps: float = 30.0) -> Picture:
    """A plan over video time, a row per section in order of generation: what it makes, sees and is told.

    An arrow leads from each stretch of context into the section. Long plans show some of their rows.
    """
    count = len(plan.sections)
    shown = sorted({round(i * (count - 1) / max(min(count, MAX_ROWS) - 1, 1)) for i in range(min(count, MAX_ROWS))})
    said = _headings(plan, shown)
    rows = sum(ROW + (HEADING if text else 0) for text in said)
    picture = Image.new("RGB", (WIDTH, TOP + rows + 52), PAPER)
    draw = ImageDraw.Draw(picture)
    _title(draw, plan.schedule)
    some = f", {len(shown)} of them shown" if len(shown) < count else ""
    title = f"{plan.num_pix_frames} frames in {count} section{'s' * (count > 1)}{some}; first made at the top"
    draw.text((MARGIN, 64), title, FAINT, _fitting(draw, title, WIDTH - 2 * MARGIN, SMALL))
    top, step = TOP, (WIDTH - MARGIN - LEFT) / plan.num_lat_frames
    _axis(draw, plan, fps, step)
    for index, text in zip(shown, said, strict=True):
        if text:
            draw.text((LEFT, top - 1), _cut(draw, text, WIDTH - MARGIN - LEFT), INK, _font(SMALL))
            top += HEADING
        _row(draw, plan, index, top, step)
        top += ROW
    _legend(draw, top + 8)
    return picture


def _headings(plan: Plan, shown: list[int]) -> list[str]:
    """What stands above each row that is shown: its prompt where it is not that of the row above it."""
    prompts = [plan.sections[index].prompt for index in shown]
    if not any(section.prompt for section in plan.sections):
        return [""] * len(shown)
    before = [object(), *prompts]
    return [
        str(prompt or "(the sampler's own prompt)") if prompt != last else ""
        for last, prompt in zip(before, prompts, strict=False)
    ]


def _axis(draw: Draw, plan: Plan, fps: float, step: float) -> None:
    """Seconds above the rows, at most seven of them, at a distance of 1, 2 or 5 times a power of ten."""
    seconds = plan.num_pix_frames / fps
    power = 10 ** floor(log10(seconds / 7))
    distance = next(d for d in (power, 2 * power, 5 * power, 10 * power) if seconds / d <= 7)
    for i in range(int(seconds / distance) + 1):
        at = LEFT + step * (i * distance * fps + 3) / FRAMES_PER_LATENT if i else LEFT
        draw.line((at, TOP - 14, at, TOP - 6), FAINT, 2)
        draw.text((at, TOP - 16), f"{i * distance:g} s", FAINT, _font(SMALL), anchor="ls" if i == 0 else "ms")


def _legend(draw: Draw, top: int) -> None:
    """What the colours of a plan stand for."""
    left = float(LEFT)
    seen = "seen (the paler, the more compressed)"
    for colour, text in ((MADE, "made"), (colour_of(Kernel.short(2)), seen), (THERE, "image")):
        draw.rectangle((left, top + 6, left + 20, top + 24), colour)
        draw.text((left + 28, top), text, FAINT, _font(SMALL))
        left += 28 + draw.textlength(text, _font(SMALL)) + 32


def _row(draw: Draw, plan: Plan, index: int, top: int, step: float) -> None:
    section, left, bottom = plan.sections[index], LEFT, top + ROW - 10

    def span(first: float, stop: float, colour: Colour) -> None:
        edges = (left + first * step, top, max(left + stop * step - 1, left + first * step), bottom)
        draw.rectangle(edges, colour)

    draw.text((MARGIN, top), str(index + 1), FAINT, _font(SMALL))
    span(0, plan.num_lat_frames, BLANK)
    for context in section.context:
        for frame in context.frames:
            if isinstance(frame, int):
                span(frame, frame + 1, colour_of(context.kernel))
    for anchor in plan.anchors:
        edges = (left + anchor.frames.start * step, bottom - 5, left + anchor.frames.stop * step, bottom)
        draw.rectangle(edges, THERE)
    for start, stop in section.makes:
        span(start, stop, MADE)
    for start, stop in _stretches(section):
        _arrow(draw, section, left, (top + bottom) / 2, step, (start + stop) / 2)


def _stretches(section: Section) -> list[tuple[int, int]]:
    """The frames that a section sees, as ranges without gaps."""
    seen = sorted(section.known)
    breaks = [i for i in range(1, len(seen)) if seen[i] != seen[i - 1] + 1]
    edges = [0, *breaks, len(seen)]
    return [(seen[a], seen[b - 1] + 1) for a, b in zip(edges, edges[1:], strict=False) if b > a]


def _arrow(draw: Draw, section: Section, left: float, y: float, step: float, at: float) -> None:
    """From a place in time into the nearest range that the section makes."""
    start, stop = min(section.makes, key=lambda made: min(abs(made[0] - at), abs(made[1] - at)))
    right = at < start
    tip = left + (start if right else stop) * step
    sign = -1 if right else 1
    draw.line((left + at * step, y, tip + sign * 2, y), INK, 2)
    draw.polygon([(tip, y), (tip + sign * 9, y - 6), (tip + sign * 9, y + 6)], INK)


def _title(draw: Draw, text: str) -> None:
    draw.text((MARGIN, 16), text, INK, _fitting(draw, text, WIDTH - 2 * MARGIN, TITLE))


def _fitting(draw: Draw, text: str, room: float, size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """The font at which a text fits, from a size downwards."""
    while size > 12 and draw.textlength(text, _font(size)) > room:
        size -= 2
    return _font(size)


def _cut(draw: Draw, text: str, room: float) -> str:
    """A text's beginning that fits."""
    while len(text) > 4 and draw.textlength(text, _font(SMALL)) > room:
        text = text[:-4].rstrip() + "…"
    return text


@cache
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
