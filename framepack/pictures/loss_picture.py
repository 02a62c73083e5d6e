"""The picture of a training run: each step's loss, its running mean, and below it the latest samples."""

from __future__ import annotations

from collections.abc import Sequence

from .drawing import FAINT, INK, MARGIN, SMALL, WIDTH, Draw, Picture, blank, length, write

HEIGHT, TITLE_HEIGHT, GAP = 240, 34, 16
CURVE, POINT = "#1864ab", "#a5c8e4"
MOST_POINTS = 400  # that are drawn of a long run
SHARE = 0.1  # of the latest step in the running mean, of a run of few steps more
SAMPLE_HEIGHT = 120  # of a sample's frames in pixels


def draw_losses(losses: Sequence[float], steps: int, samples: Sequence[Sequence[Picture]] = ()) -> Picture:
    """The losses of a run's first steps, of `steps` in all, and a row of frames for each sample."""
    rows = len(samples) * (SAMPLE_HEIGHT + GAP)
    picture, draw = blank(MARGIN + TITLE_HEIGHT + HEIGHT + TITLE_HEIGHT + MARGIN + rows)
    means = running_mean(losses)
    top, width = MARGIN / 2, WIDTH - 2 * MARGIN
    every = max(len(losses) // MOST_POINTS, 1)
    high = _highest(losses[::every])
    write(draw, (MARGIN, top), f"loss, from 0 to {high:.3g}", INK, SMALL)
    if losses:
        last = f"{means[-1]:.4f}"
        write(draw, (WIDTH - MARGIN - length(draw, last, SMALL), top), last, CURVE, SMALL)
    top += TITLE_HEIGHT
    _curves(draw, losses[::every], means[::every], (steps / every, high), (MARGIN, top, width))
    below = f"step {len(losses)} of {steps}"
    write(draw, (WIDTH - MARGIN - length(draw, below, SMALL), top + HEIGHT + 4), below, FAINT, SMALL)
    for row, frames in enumerate(samples):
        at = round(top + HEIGHT + TITLE_HEIGHT + GAP + row * (SAMPLE_HEIGHT + GAP))
        _sample(picture, frames, at, width)
    return picture


def running_mean(losses: Sequence[float]) -> list[float]:
    """The running mean after each step; the first steps count alike."""
    found: list[float] = []
    for i, loss in enumerate(losses):
        share = max(SHARE * min(1.0, 200 / max(len(losses), 1)), 1 / (i + 1))
        found.append(loss if not found else found[-1] + share * (loss - found[-1]))
    return found


def _highest(losses: Sequence[float]) -> float:
    """What the curve shows at most: a few losses may lie above."""
    return max(sorted(losses)[: max(round(0.98 * len(losses)), 1)], default=1.0) * 1.1 or 1.0


def _curves(
    draw: Draw,
    losses: Sequence[float],
    means: Sequence[float],
    most: tuple[float, float],
    place: tuple[float, float, float],
) -> None:
    """Points for losses and a line for their mean, over a baseline at zero; `most` points and the highest loss."""
    (steps, high), (left, top, width) = most, place

    def at(step: int, loss: float) -> tuple[float, float]:
        return left + width * (step + 0.5) / max(steps, 1), top + HEIGHT * (1 - min(loss / high, 1.0))

    draw.line((left, top + HEIGHT, left + width, top + HEIGHT), FAINT)
    for x, y in (at(i, loss) for i, loss in enumerate(losses)):
        draw.ellipse((x - 2, y - 2, x + 2, y + 2), POINT)
    if len(means) > 1:
        draw.line([at(i, mean) for i, mean in enumerate(means)], CURVE, 3)


def _sample(picture: Picture, frames: Sequence[Picture], top: int, width: int) -> None:
    """A sample's frames in a row, as many as have room."""
    left = MARGIN
    for frame in frames:
        wide = max(round(frame.width * SAMPLE_HEIGHT / frame.height), 1)
        if left + wide > MARGIN + width:
            return
        picture.paste(frame.convert("RGB").resize((wide, SAMPLE_HEIGHT)), (left, top))
        left += wide + 2
