"""Images from elsewhere: 20 that the world's generator cannot draw, and what videos from them keep.

Pillow draws them, four times as large, and makes them small by its own filter: colours between the named ones, sizes
from 8 to 16 pixels, tinted grounds that are plain, graded, or textured in ways the generator does not know. A shape is
found by how far each pixel lies from the true background towards the shape's own colour, since a tint is no grey.

Dims: t frames, h w picture.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageChops, ImageDraw, ImageFilter
from torch import Tensor

from .shape_measures import Track
from .wide import nearest
from .world import CIRCUMRADIUS, COLOURS, DIRECTIONS, SIZE, SPEEDS, Scene

COUNT = 20
LARGE = 4  # how many times larger they are drawn
GROUNDS = ("plain", "two tints", "round", "paper", "bricks")
CORNERS = {"square": 4, "triangle": 3}
NEAR = 0.2  # of a shape's own colour, as distance in [0, 1] for each of red, green and blue
AROUND = 3  # pixels around a shape that count as neither shape nor background
LARGEST = 0.5  # of a picture that a shape and what is around it may take up
MOST = 6 / 255  # how far a background may be off

Rgb = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An image: its picture and its background without the shape, ``3 h w`` each, and how it is to move."""

    picture: Tensor
    plate: Tensor
    paint: Tensor  # 3
    scene: Scene


def case(number: int) -> Case:
    """The image of a number, 0 to 19. Number 0 is a blue circle on a plain grey with a tint."""
    rng = random.Random(f"outside/{number}")
    shape, direction = list(CIRCUMRADIUS)[number % 4], list(DIRECTIONS)[(number // 4 + number) % 4]
    radius, speed = rng.uniform(8, 16), ("", "quickly")[number % 2]
    paint = _paint(rng)
    if number == 0:
        radius, paint = 11.0, _bytes(COLOURS["blue"])
    colour = nearest(tuple(value / 255 for value in paint))
    margin = radius * CIRCUMRADIUS[shape] + 1
    start = _start(rng, direction, margin)
    plate = _ground(rng, GROUNDS[number % len(GROUNDS)], paint)
    if number == 0:
        plate.paste((120, 120, 125), (0, 0, *plate.size))
    picture = plate.copy()
    _draw_shape(ImageDraw.Draw(picture), shape, start, radius, paint)
    scene = Scene(
        shape=shape,
        colour=colour,
        radius=radius,
        start=start,
        direction=direction,
        speed=speed,
        spin=0.0,
        greys=(0.0, 0.0),
        wording=2,
    )
    return Case(picture=_small(picture), plate=_small(plate), paint=torch.tensor(paint) / 255, scene=scene)


def _bytes(colour: tuple[float, float, float]) -> Rgb:
    r, g, b = (round(255 * value) for value in colour)
    return r, g, b


def _paint(rng: random.Random) -> Rgb:
    """A colour about a third of the way from one that is named to another."""
    one, other = rng.sample(list(COLOURS.values()), 2)
    share = rng.uniform(0.2, 0.45)
    r, g, b = (min(max(a + share * (c - a), 0), 1) for a, c in zip(one, other, strict=True))
    return _bytes((r, g, b))


def _start(rng: random.Random, direction: str, margin: float) -> tuple[float, float]:
    """A place with all its room ahead."""
    (dx, dy), room = DIRECTIONS[direction], SIZE - 2 * margin
    x, y = (margin + (rng.uniform(0, 0.15) if step else rng.uniform(0, 1)) * room for step in (dx, dy))
    return (SIZE - x if dx < 0 else x, SIZE - y if dy < 0 else y)


def _tint(rng: random.Random, paint: Rgb, spread: int = 24) -> Rgb:
    """A greyish tint that a colour stands out against."""
    while True:
        grey = rng.randrange(40, 215)
        r, g, b = (min(max(grey + rng.randrange(-spread, spread + 1), 0), 255) for _ in range(3))
        if math.dist((r, g, b), paint) > 110:
            return r, g, b


def _ground(rng: random.Random, kind: str, paint: Rgb) -> Image.Image:
    side = SIZE * LARGE
    ground = Image.new("RGB", (side, side), _tint(rng, paint))
    other = Image.new("RGB", (side, side), _tint(rng, paint))
    match kind:
        case "two tints":
            ramp = Image.linear_gradient("L").rotate(rng.choice((0, 90, 180, 270))).resize((side, side))
            return Image.composite(ground, Image.blend(ground, other, 0.6), ramp)
        case "round":
            ramp = Image.radial_gradient("L").resize((side, side))
            return Image.composite(ground, Image.blend(ground, other, 0.5), ramp)
        case "paper":
            noise = np.random.default_rng(rng.randrange(2**31)).normal(128, 60, (side // 2, side // 2)).clip(0, 255)
            rough = Image.fromarray(noise.astype(np.uint8)).resize((side, side)).filter(ImageFilter.GaussianBlur(6))
            return ImageChops.overlay(ground, Image.merge("RGB", [rough] * 3))
        case "bricks":
            pen, lighter = ImageDraw.Draw(ground), Image.blend(ground, other, 0.15).getpixel((0, 0))
            for row in range(0, side, 48):
                pen.line((0, row, side, row), fill=lighter, width=8)
                for column in range(0, side, 96):
                    x = column + (48 if row // 48 % 2 else 0)
                    pen.line((x, row, x, row + 48), fill=lighter, width=8)
    return ground


def _draw_shape(pen: ImageDraw.ImageDraw, shape: str, centre: tuple[float, float], radius: float, paint: Rgb) -> None:
    x, y = (LARGE * value for value in centre)
    corner = LARGE * radius * CIRCUMRADIUS[shape]
    if shape == "circle":
        pen.ellipse((x - corner, y - corner, x + corner, y + corner), fill=paint)
    elif shape == "star":
        notch = corner * math.cos(2 * math.pi / 5) / math.cos(math.pi / 5)
        turns = [(i * math.pi / 5 - math.pi / 2, notch if i % 2 else corner) for i in range(10)]
        pen.polygon([(x + r * math.cos(a), y + r * math.sin(a)) for a, r in turns], fill=paint)
    else:
        pen.regular_polygon((x, y, corner), CORNERS[shape], fill=paint)


def _small(picture: Image.Image) -> Tensor:
    """``3 h w`` in [0, 1]."""
    small = picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    return rearrange(torch.from_numpy(np.asarray(small).copy()).float() / 255, "h w c -> c h w")


def likeness(frames: Tensor, one: Case) -> Tensor:
    """How far each pixel of frames ``t 3 h w`` lies from the background towards the shape's colour: ``t h w``."""
    away = one.paint[:, None, None] - one.plate
    return ((frames - one.plate) * away).sum(1) / away.square().sum(0)


def tracked(frames: Tensor, one: Case) -> Track:
    """The shape in frames ``t 3 h w``, as `measures.track` gives it of grey backgrounds."""
    share = likeness(frames, one).clamp(0, 1)
    inside, weight = share > 0.5, (share - 0.25).clamp_min(0)
    y, x = (torch.arange(n) + 0.5 for n in share.shape[1:])
    total = weight.sum((1, 2))
    centre = torch.stack([(weight.sum(1) * x).sum(1), (weight.sum(2) * y).sum(1)], -1) / total[:, None]
    inner = _grown(~inside, 1).logical_not()
    colour = (frames * inner[:, None]).sum((2, 3)) / inner.sum((1, 2)).clamp_min(1)[:, None]
    return Track(area=inside.sum((1, 2)), centre=centre, colour=colour)


def _grown(mask: Tensor, pixels: int) -> Tensor:
    return F.max_pool2d(mask.float()[:, None], 2 * pixels + 1, 1, pixels)[:, 0] > 0


def shape_kept(seen: Track, one: Case) -> Tensor:
    """Per frame: is the shape there, in its own colour, with its area within 40 %? ``t``."""
    ratio = seen.area / tracked(one.picture[None], one).area.clamp_min(1)
    near = (seen.colour - one.paint).norm(dim=1) / 3**0.5 < NEAR
    return near & (ratio > 0.6) & (ratio < 1.4)


def background_off(frames: Tensor, one: Case) -> Tensor:
    """Per frame: the mean absolute difference from the true background, outside the shape, in [0, 1]: ``t``.

    Where more than any shape takes up looks like the shape, that is background, too.
    """
    outside = ~_grown(likeness(frames, one) > 0.5, AROUND)
    outside |= (outside.float().mean((1, 2)) < 1 - LARGEST)[:, None, None]
    off = (frames - one.plate).abs().mean(1) * outside
    return off.sum((1, 2)) / outside.sum((1, 2)).clamp_min(1)


def moving(one: Case) -> bool:
    """Has the shape room to move far enough to tell where to?"""
    return one.scene.first_bounce * SPEEDS[one.scene.speed] >= 3
