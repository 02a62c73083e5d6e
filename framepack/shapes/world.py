"""The built-in model's world: one coloured shape that moves, bounces and turns, with a caption that says so.

Dims: t frames, h w picture. Everything that happens follows from the first frame and the caption, so a
model can learn it whole, and a measure can tell whether it did. Lengths are pixels, times frames at 30 fps.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .backdrops import Backdrop

SIZE = 64
COLOURS = {
    "red": (0.90, 0.15, 0.15),
    "green": (0.15, 0.75, 0.20),
    "blue": (0.15, 0.30, 0.95),
    "yellow": (0.95, 0.85, 0.10),
    "purple": (0.65, 0.20, 0.85),
    "cyan": (0.10, 0.80, 0.85),
}
# Distance from centre to farthest corner for a shape of the area of a circle of radius 1.
CIRCUMRADIUS = {
    "circle": 1.0,
    "square": math.sqrt(math.pi / 2),
    "triangle": math.sqrt(math.pi / (0.75 * math.sqrt(3))),
    "star": math.sqrt(math.pi / (2.5 * math.sin(math.pi / 5))),
}
# What the built-in model has not learned: the example of a finetune teaches it (lesson.py).
NEW_COLOURS = {"orange": (0.95, 0.50, 0.08)}
NEW_SHAPES = {"ring": 1.15}  # and its circumradius
UPRIGHT = {"circle": 0.0, "square": 0.0, "triangle": math.pi / 2, "star": -math.pi / 2}  # a tip up, or a side level
DIRECTIONS = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}
SPEEDS = {"slowly": 0.08, "": 0.15, "quickly": 0.25}
# A latent pixel is 8 px wide: smaller outlines are lost between a few of them.
RADII = (10.0, 12.0)
SPEED_WEIGHTS = (0.4, 0.4, 0.2)
SPIN = math.radians(1.5)
EDGE = 1.5  # width of the soft edge


@dataclass(frozen=True, slots=True, kw_only=True)
class Away:
    """A shape that leaves the picture at a speed in pixels a frame and comes back so many frames after it was gone."""

    speed: float
    gone: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One clip: what it shows and how that moves; it begins upright. `greys` are the background's at top and bottom.

    The wide world (`wide.py`) sets the rest: `paint` is the shape's colour where it is not exactly the one that is
    named, `backdrop` stands in the place of the greys, `edge` is the width of the soft edge, `fine` draws at twice the
    size, and `away` makes the shape leave and come back to where it began.
    """

    shape: str
    colour: str
    radius: float
    start: tuple[float, float]
    direction: str
    speed: str
    spin: float
    greys: tuple[float, float]
    wording: int
    paint: tuple[float, float, float] | None = None
    backdrop: Backdrop | None = None
    edge: float = EDGE
    fine: bool = False
    away: Away | None = None

    @property
    def colour_values(self) -> tuple[float, float, float]:
        """Its colour as red, green and blue."""
        return self.paint or (COLOURS | NEW_COLOURS)[self.colour]

    @property
    def margin(self) -> float:
        """Distance from the border at which the shape's centre bounces."""
        return self.radius * (CIRCUMRADIUS | NEW_SHAPES)[self.shape] + 1

    @property
    def first_bounce(self) -> float:
        """Frame at which the shape first meets the border."""
        (dx, dy), (x, y) = DIRECTIONS[self.direction], self.start
        position = x if dx else y
        room = SIZE - self.margin - position if dx + dy > 0 else position - self.margin
        return room / SPEEDS[self.speed]


def sample_scene(rng: random.Random) -> Scene:
    """Draw a scene; the same rng state gives the same scene."""
    shape = rng.choice(list(CIRCUMRADIUS))
    radius = rng.uniform(*RADII)
    margin = radius * CIRCUMRADIUS[shape] + 1
    top = rng.uniform(0.08, 0.40)
    graded = rng.random() < 0.5
    bottom = (top + 0.2 if top < 0.24 else top - 0.2) if graded else top
    return Scene(
        shape=shape,
        colour=rng.choice(list(COLOURS)),
        radius=radius,
        start=(rng.uniform(margin, SIZE - margin), rng.uniform(margin, SIZE - margin)),
        direction=rng.choice(list(DIRECTIONS)),
        speed=rng.choices(list(SPEEDS), SPEED_WEIGHTS)[0],
        spin=SPIN if shape != "circle" and rng.random() < 0.4 else 0.0,
        greys=(top, bottom),
        wording=rng.randrange(3),
    )


def caption(scene: Scene) -> str:
    """Say what happens, in one of three wordings; the third leaves the background out.

    Of a shape that leaves and comes back it says neither colour nor outline: the picture alone tells them.
    """
    if scene.away:
        return _of_away(scene)
    speed = f" {scene.speed}" if scene.speed else ""
    turning = " and turns" if scene.spin else ""
    background = "plain" if scene.greys[0] == scene.greys[1] else "graded"
    what = f"{scene.colour} {scene.shape}"
    match scene.wording:
        case 0:
            return f"a {what} moves{speed}{_where(scene)}{turning} on a {background} background"
        case 1:
            return f"{what} moving{speed} {scene.direction}{', turning' if scene.spin else ''}, {background} background"
        case _:
            return f"a {what} moves{speed}{_where(scene)}{turning}"


def _where(scene: Scene) -> str:
    return f" to the {scene.direction}" if scene.direction in ("left", "right") else f" {scene.direction}"


def _of_away(scene: Scene) -> str:
    match scene.wording:
        case 0:
            return f"a shape leaves{_where(scene)} and returns to the mark"
        case 1:
            return f"shape leaving {scene.direction}, returning"
        case _:
            return f"a shape leaves{_where(scene)} and returns"


def centres(scene: Scene, frames: Sequence[int] | Tensor) -> Tensor:
    """The shape's centre in each frame, ``t 2`` as x, y: uniform motion reflected at the margins."""
    times = torch.as_tensor(frames, dtype=torch.float64)
    if scene.away:
        return _going_and_coming(scene, scene.away, times)
    room = SIZE - 2 * scene.margin
    axes = []
    for start, step in zip(scene.start, DIRECTIONS[scene.direction], strict=True):
        phase = (start - scene.margin + step * SPEEDS[scene.speed] * times) % (2 * room)
        axes.append(scene.margin + torch.where(phase > room, 2 * room - phase, phase))
    return torch.stack(axes, -1)


def _going_and_coming(scene: Scene, away: Away, times: Tensor) -> Tensor:
    """The centre of a shape that leaves straight on, stays outside, comes back the same way and rests."""
    distance = way_out(scene)
    leaving = distance / away.speed
    back = distance - away.speed * (times - leaving - away.gone)
    along = torch.minimum(away.speed * times, back).clamp(0, distance)
    return torch.stack(
        [start + step * along for start, step in zip(scene.start, DIRECTIONS[scene.direction], strict=True)], -1
    )


def way_out(scene: Scene) -> float:
    """How far the shape goes until nothing of it is in the picture."""
    (dx, dy), (x, y) = DIRECTIONS[scene.direction], scene.start
    position = x if dx else y
    return (SIZE - position if dx + dy > 0 else position) + scene.margin + 1
