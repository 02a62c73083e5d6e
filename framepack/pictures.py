"""Pictures of a schedule and of a plan, drawn with Pillow.

A colour stands for a kernel: the more a frame is compressed, the paler it is. What is generated is orange.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import log2

from PIL import Image, ImageDraw, ImageFont

from .plan import Plan, Section
from .schedule import Group, Schedule, count_tokens
from .units import BASE, PIXELS_PER_LATENT, Kernel

Picture = Image.Image

WIDTH, MARGIN = 960, 24  # pixels
CELL = 64  # height of a frame in the strip
ROW, MAX_ROWS = 14, 64  # a plan's rows: their height, and how many are drawn
PAPER, INK, FAINT, LINE = "#ffffff", "#22262b", "#8a9099", "#ffffff"
MADE, THERE, BLANK = "#e8590c", "#343a40", "#e9ecef"
_STRONG, _PALE = (11, 83, 148), (190, 222, 246)  # of k1, and of 64 latent frames in one token


def colour_of(kernel: Kernel) -> tuple[int, int, int]:
    """The colour of a kernel, by the logarithm of what one token of it stands for."""
    share = min(log2(kernel.size / BASE.size) / 9, 1.0)
    return tuple(round(a + (b - a) * share) for a, b in zip(_STRONG, _PALE, strict=True))  # type: ignore[return-value]


def draw_schedule(schedule: Schedule, height: int, width: int) -> Picture:
    """A schedule in video time, and its tokens on a latent grid of height by width."""
    tokens = count_tokens(schedule, height, width)
    groups = zip(schedule.groups, tokens.groups, strict=True)
    rows = [(f"{group.num_lat_frames} x {group.kernel}", count, colour_of(group.kernel)) for group, count in groups]
    rows.append((f"{schedule.generate} generated", tokens.generated, MADE))
    picture = Image.new("RGB", (WIDTH, 150 + CELL + 26 * len(rows)), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN, 16), str(schedule), INK, _font(20))
    _strip(draw, schedule, 60)
    top = 60 + CELL + 36
    for text, count, colour in rows:
        _bar(draw, top, text, count, count / max(tokens.total, 1), colour)
        top += 26
    size = f"{width * PIXELS_PER_LATENT} x {height * PIXELS_PER_LATENT}"
    total = f"{tokens.context} context + {tokens.generated} generated = {tokens.total} tokens at {size}"
    draw.text((MARGIN, top + 6), total, INK, _font(15))
    return picture


def _strip(draw: ImageDraw.ImageDraw, schedule: Schedule, top: int) -> None:
    """The frames of all groups in video time, each divided as its tokens divide it."""
    parts = list(_parts(schedule))
    frames = sum(part.num_lat_frames if isinstance(part, Group) else part or 2 for part in parts)
    step = min((WIDTH - 2 * MARGIN) / frames, CELL / 2)
    left = float(MARGIN)
    for part in parts:
        if isinstance(part, Group):
            _tokens(draw, part, left, top, step)
            left += part.num_lat_frames * step
        elif part:
            draw.rectangle((left, top, left + part * step, top + CELL), MADE, LINE)
            left += part * step
        else:
            draw.text((left + step, top + CELL / 2), "...", FAINT, _font(18), anchor="mm")
            left += 2 * step
    draw.text((MARGIN, top + CELL + 6), f"{schedule.sampling}; tail {schedule.tail}; time runs right", FAINT, _font(13))


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


def _tokens(draw: ImageDraw.ImageDraw, group: Group, left: float, top: int, step: float) -> None:
    right, kernel = left + group.num_lat_frames * step, group.kernel
    draw.rectangle((left, top, right, top + CELL), colour_of(kernel))
    for frame in range(0, group.num_lat_frames + 1, kernel.t):
        draw.line((left + frame * step, top, left + frame * step, top + CELL), LINE)
    rows = max(CELL // (4 * kernel.h), 1)  # a schematic picture of 16 latent rows
    for row in range(rows + 1):
        draw.line((left, top + CELL * row / rows, right, top + CELL * row / rows), LINE)


def _bar(draw: ImageDraw.ImageDraw, top: int, text: str, count: int, share: float, colour: object) -> None:
    left, room = 190, WIDTH - 190 - MARGIN - 90
    draw.text((MARGIN, top + 2), text, INK, _font(15))
    draw.rectangle((left, top + 2, left + max(room * share, 1), top + 20), colour)  # type: ignore[arg-type]
    draw.text((left + room * share + 8, top + 2), str(count), INK, _font(15))


def draw_plan(plan: Plan) -> Picture:
    """A plan: one row per section in order of generation, over video time; long plans show some of their rows."""
    count = len(plan.sections)
    shown = sorted({round(i * (count - 1) / max(min(count, MAX_ROWS) - 1, 1)) for i in range(min(count, MAX_ROWS))})
    step = (WIDTH - 2 * MARGIN - 40) / plan.num_lat_frames
    picture = Image.new("RGB", (WIDTH, 96 + ROW * len(shown)), PAPER)
    draw = ImageDraw.Draw(picture)
    some = f", {len(shown)} of them shown" if len(shown) < count else ""
    title = f"{plan.num_pix_frames} frames in {count} sections{some}, first at the top"
    draw.text((MARGIN, 14), plan.schedule, INK, _font(18))
    draw.text((MARGIN, 40), title, FAINT, _font(14))
    for row, index in enumerate(shown):
        _row(draw, plan, plan.sections[index], index, 68 + ROW * row, step)
    return picture


def _row(draw: ImageDraw.ImageDraw, plan: Plan, section: Section, index: int, top: int, step: float) -> None:
    left = MARGIN + 40

    def cells(first: int, stop: int, colour: object) -> None:
        draw.rectangle((left + first * step, top + 1, left + stop * step - 0.5, top + ROW - 2), colour)  # type: ignore[arg-type]

    draw.text((MARGIN, top), str(index), FAINT, _font(11))
    cells(0, plan.num_lat_frames, BLANK)
    for context in section.context:
        for frame in context.frames:
            if isinstance(frame, int):
                cells(frame, frame + 1, colour_of(context.kernel))
    for anchor in plan.anchors:
        edges = (
            left + anchor.frames.start * step,
            top + ROW - 4,
            left + anchor.frames.stop * step - 0.5,
            top + ROW - 2,
        )
        draw.rectangle(edges, THERE)
    for start, stop in section.makes:
        cells(start, stop, MADE)


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
