"""The picture of a schedule: its frames in video time, their tokens, and what they save (paper figure 1)."""

from __future__ import annotations

from collections.abc import Iterator
from math import log2

from ..planning.costs import LAT_FRAMES_PER_MINUTE, against_full
from ..schedule.grammar import Group, Schedule, count_tokens
from ..schedule.tails import TAILS
from ..units import RELEASED
from .drawing import (
    FAINT,
    GENERATED,
    INK,
    LINE,
    MARGIN,
    SMALL,
    TEXT,
    TITLE,
    WIDTH,
    Colour,
    Draw,
    Picture,
    blank,
    colour_of,
    font,
    length,
    write,
)

CELL, BAR = 104, 44  # height in pixels of a frame in the strip, and of a group's row
FULL = 32  # frames of a group that are drawn in full


def draw_schedule(schedule: Schedule, height: int, width: int) -> Picture:
    """A schedule in video time, its tokens on a latent grid of height by width, and their cost."""
    tokens = count_tokens(schedule, height, width)
    groups = zip(schedule.groups, tokens.groups, strict=True)
    rows = [(f"{group.num_lat_frames} x {group.kernel}", count, colour_of(group.kernel)) for group, count in groups]
    rows.append((f"{schedule.generate} generated", tokens.generated, GENERATED))
    lines = summary(schedule, height, width)
    picture, draw = blank(180 + CELL + 40 + BAR * len(rows) + 38 * len(lines))
    write(draw, (MARGIN, 16), str(schedule), INK, TITLE, WIDTH - 2 * MARGIN)
    _strip(draw, schedule, 112)
    top = 112 + CELL + 60
    for text, count, colour in rows:
        _bar(draw, top, text, count, count / max(tokens.total, 1), colour)
        top += BAR
    for i, line in enumerate(lines):
        write(draw, (MARGIN, top + 14 + 38 * i), line, INK, TEXT, WIDTH - 2 * MARGIN)
    return picture


def summary(schedule: Schedule, height: int, width: int) -> list[str]:
    """Totals, the generated section's share, and the cost of a step against full context."""
    tokens = count_tokens(schedule, height, width)
    share = tokens.generated / tokens.total
    size = f"{width * RELEASED.spatial} x {height * RELEASED.spatial}"
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
    step = min((WIDTH - 2 * MARGIN) / sum(map(_drawn, parts)), CELL / 2)
    left, free = float(MARGIN), 0.0  # where the next group stands, and where the next label may
    for part in parts:
        room = _drawn(part) * step
        if isinstance(part, Group):
            _tokens(draw, part, left, top, room / part.num_lat_frames)
        elif part:
            draw.rectangle((left, top, left + room, top + CELL), GENERATED, LINE)
        else:
            draw.text((left + room / 2, top + CELL / 2), "...", FAINT, font(TEXT), anchor="mm")
        name = str(part.kernel) if isinstance(part, Group) else f"g{part}" if part else "x"
        if left >= free and length(draw, name, SMALL) <= max(room, 30):
            write(draw, (left, top - 32), name, INK, SMALL)
            free = left + length(draw, name, SMALL) + 4
        left += room
    note = f"{schedule.order}; {TAILS[schedule.tail].note}"
    if any(group.num_lat_frames > FULL for group in schedule.groups):
        note += f"; groups of more than {FULL} frames are drawn shorter"
    write(draw, (MARGIN, top + CELL + 8), note, FAINT, SMALL, WIDTH - 2 * MARGIN)


def _drawn(part: Group | int) -> float:
    """The length of a part in the strip, in frames: beyond FULL only its logarithm counts."""
    frames = part.num_lat_frames if isinstance(part, Group) else part or 2
    return frames if frames <= FULL else FULL * (1 + log2(frames / FULL) / 2)


def _parts(schedule: Schedule) -> Iterator[Group | int]:
    """Groups, the generated frames as a number, and 0 for a skip, in video time."""
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
    write(draw, (MARGIN, top), text, INK, TEXT, left - MARGIN - 10)
    draw.rectangle((left, top + 4, left + max(room * share, 2), top + 32), colour)
    write(draw, (left + room * share + 12, top), str(count), INK, TEXT)
