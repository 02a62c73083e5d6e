"""The picture of a plan over video time, a row per section in order of generation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import floor, log10

from ..planning.plan import Plan
from ..planning.reuse import Fate
from ..planning.section import Section
from ..planning.times import place_of
from ..units import Kernel
from .drawing import (
    BLANK,
    FAINT,
    GENERATED,
    IMAGE,
    INK,
    MARGIN,
    PAPER,
    SMALL,
    TITLE,
    WIDTH,
    Colour,
    Draw,
    Picture,
    blank,
    colour_of,
    cut,
    font,
    length,
    one_line,
    write,
)

ROW, MAX_ROWS = 40, 24  # a section's row: its height in pixels, and how many are drawn
TOP, LEFT, HEADING = 150, MARGIN + 52, 36  # where rows begin, and the height of a prompt above one


FATES = 250  # the width of a column that says what becomes of each section
REUSED = "#2b8a3e"


def draw_plan(
    plan: Plan, fps: float = 30.0, poll: Callable[[], None] = lambda: None, fates: Sequence[Fate] = ()
) -> Picture:
    """A plan's sections: what each generates, sees, its prompt, and its fate where it is known.

    `poll` is called once a row and may raise.

    An arrow leads from each stretch of context into the section. Long plans show some of their rows.
    """
    count = len(plan.sections)
    shown = sorted({round(i * (count - 1) / max(min(count, MAX_ROWS) - 1, 1)) for i in range(min(count, MAX_ROWS))})
    headings = _headings(plan, shown)
    picture, draw = blank(TOP + sum(ROW + (HEADING if text else 0) for text in headings) + 52)
    write(draw, (MARGIN, 16), plan.schedule, INK, TITLE, WIDTH - 2 * MARGIN)
    some = f", {len(shown)} of them shown" if len(shown) < count else ""
    kept = plan.kept_frames
    title = f"{len(kept)} frames in {count} section{'s' * (count > 1)}{some}; first generated at the top"
    write(draw, (MARGIN, 64), title, FAINT, SMALL, WIDTH - 2 * MARGIN)
    right = WIDTH - MARGIN - (FATES if fates else 0)
    top, step = TOP, (right - LEFT) / plan.num_lat_frames
    _axis(draw, plan, fps, step)
    for index, text in zip(shown, headings, strict=True):
        poll()
        if text:
            write(draw, (LEFT, top - 1), cut(draw, one_line(text), WIDTH - MARGIN - LEFT, SMALL), INK, SMALL)
            top += HEADING
        _row(draw, plan, index, top, step)
        if fates:
            _fate(draw, fates[index], right + 12, top)
        top += ROW
    _legend(draw, top + 8)
    return picture


def _fate(draw: Draw, fate: Fate, left: float, top: int) -> None:
    """A mark, and a word or two: a filled green dot is reused, an orange ring is generated."""
    colour, y = REUSED if fate.reused else GENERATED, top + 8
    draw.ellipse((left, y, left + 16, y + 16), colour if fate.reused else PAPER, colour, 3)
    text = (fate.why or "reused") if fate.reused else fate.why
    write(draw, (left + 24, top), text, FAINT, SMALL, FATES - 36)


def _headings(plan: Plan, shown: list[int]) -> list[str]:
    """The line above each row: its prompt where it is not that of the row above it."""
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
    kept = plan.kept_frames
    seconds = len(kept) / fps
    power = 10 ** floor(log10(seconds / 7))
    distance = next(d for d in (power, 2 * power, 5 * power, 10 * power) if seconds / d <= 7)
    for i in range(int(seconds / distance) + 1):
        at = LEFT + step * place_of(plan, kept.start + i * distance * fps)
        draw.line((at, TOP - 14, at, TOP - 6), FAINT, 2)
        draw.text((at, TOP - 16), f"{i * distance:g} s", FAINT, font(SMALL), anchor="ls" if i == 0 else "ms")


def _legend(draw: Draw, top: int) -> None:
    """What the colours stand for."""
    left = float(LEFT)
    context = "context (the paler, the more compressed)"
    for colour, text in ((GENERATED, "generated"), (colour_of(Kernel.short(2)), context), (IMAGE, "image")):
        draw.rectangle((left, top + 6, left + 20, top + 24), colour)
        write(draw, (left + 28, top), text, FAINT, SMALL)
        left += 28 + length(draw, text, SMALL) + 32


def _row(draw: Draw, plan: Plan, index: int, top: int, step: float) -> None:
    section, bottom = plan.sections[index], top + ROW - 10

    def span(first: float, stop: float, colour: Colour, height: int = ROW - 10) -> None:
        right = max(LEFT + stop * step - 1, LEFT + first * step)
        draw.rectangle((LEFT + first * step, bottom - height, right, bottom), colour)

    write(draw, (MARGIN, top), str(index + 1), FAINT, SMALL)
    span(0, plan.num_lat_frames, BLANK)
    for context in section.context:
        for run in context.known:
            span(run.start, run.stop, colour_of(context.kernel))
    for anchor in plan.anchors:
        span(anchor.frames.start, anchor.frames.stop, IMAGE, 5)
    for start, stop in section.makes:
        span(start, stop, GENERATED)
    for start, stop in _cut(plan):
        span(start, stop, INK, 3)
    for start, stop in _stretches(section):
        _arrow(draw, section, (top + bottom) / 2, step, (start + stop) / 2)


def _cut(plan: Plan) -> list[tuple[float, float]]:
    """Where decoded frames are cut, in latent frames."""
    kept, num, temporal = plan.kept_frames, plan.num_pix_frames, plan.geometry.temporal
    found = [
        (0.0, (kept.start + temporal - 1) / temporal),
        ((kept.stop + temporal - 1) / temporal, plan.num_lat_frames),
    ]
    return [span for span, cut in zip(found, (kept.start, num - kept.stop), strict=True) if cut]


def _stretches(section: Section) -> list[tuple[int, int]]:
    """The frames that a section sees, as ranges without gaps."""
    stretches: list[tuple[int, int]] = []
    for run in sorted(section.runs, key=lambda run: run.start):
        if stretches and run.start <= stretches[-1][1]:
            stretches[-1] = (stretches[-1][0], max(stretches[-1][1], run.stop))
        else:
            stretches.append((run.start, run.stop))
    return stretches


def _arrow(draw: Draw, section: Section, y: float, step: float, at: float) -> None:
    """From a place in time into the nearest range that the section makes."""
    start, stop = min(section.makes, key=lambda made: min(abs(made[0] - at), abs(made[1] - at)))
    right = at < start
    tip = LEFT + (start if right else stop) * step
    sign = -1 if right else 1
    draw.line((LEFT + at * step, y, tip + sign * 2, y), INK, 2)
    draw.polygon([(tip, y), (tip + sign * 9, y - 6), (tip + sign * 9, y + 6)], INK)
