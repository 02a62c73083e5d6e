"""Scenes wider than the model's own world: other backgrounds, colours, sizes and edges, and shapes that come back.

They teach the model images from elsewhere. Captions say what they say of the plain world; a colour is called after the
nearest that has a name.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace

from .backdrops import Backdrop, Mark, Rgb, Texture
from .world import CIRCUMRADIUS, COLOURS, DIRECTIONS, SIZE, Away, Scene, sample_scene

RADII = (8.0, 16.0)
NAMED = 0.4  # the share of shapes in exactly the colour that is named
STANDS_OUT = 0.35  # distance between a shape's colour and every background colour
TEXTURES: tuple[Texture, ...] = ("cloud", "grain", "stripes", "checks")
STRENGTHS = (0.01, 0.07)
SCALES = {"cloud": (8.0, 28.0), "grain": (6.0, 16.0), "stripes": (6.0, 24.0), "checks": (8.0, 24.0)}
# A shape that leaves does so in about two seconds, and is gone longer than time order remembers (19 latent frames).
AWAY_SPEEDS, GONE = (0.75, 1.0), (70, 130)
AWAY_RADII = (9.0, 13.0)


def sample_wide(rng: random.Random) -> Scene:
    """Draw a scene of the wide world; the same rng state gives the same scene."""
    scene = sample_scene(rng)
    radius = rng.uniform(*RADII)
    margin = radius * CIRCUMRADIUS[scene.shape] + 1
    paint = sample_paint(rng, scene.colour)
    backdrop = sample_backdrop(rng, paint or COLOURS[scene.colour])
    graded = backdrop.tints[0] != backdrop.tints[1]
    return replace(
        scene,
        radius=radius,
        start=(rng.uniform(margin, SIZE - margin), rng.uniform(margin, SIZE - margin)),
        greys=(0.0, 1.0) if graded else (0.0, 0.0),  # what captions call it
        wording=2 if backdrop.texture else scene.wording,
        paint=paint,
        backdrop=backdrop,
        edge=rng.uniform(0.4, 3.0) if rng.random() < 0.6 else scene.edge,
        fine=rng.random() < 0.2,
    )


def sample_away(rng: random.Random) -> Scene:
    """A shape that leaves and comes back to a marked place, on any background."""
    wide = sample_wide(rng)
    radius = rng.uniform(*AWAY_RADII)
    margin = radius * CIRCUMRADIUS[wide.shape] + 1
    start = (rng.uniform(margin, SIZE - margin), rng.uniform(margin, SIZE - margin))
    assert wide.backdrop is not None
    lightness = sum(wide.backdrop.tints[0]) / 3
    mark = Mark(centre=start, half=radius * 1.2 + 2, lighter=0.2 if lightness < 0.5 else -0.2)
    return replace(
        wide,
        radius=radius,
        start=start,
        direction=rng.choice(list(DIRECTIONS)),
        backdrop=replace(wide.backdrop, mark=mark),
        spin=0.0,
        away=Away(speed=rng.uniform(*AWAY_SPEEDS), gone=rng.randrange(*GONE)),
        wording=rng.randrange(3),
    )


def sample_paint(rng: random.Random, name: str) -> Rgb | None:
    """A colour between the one of a name and another, still nearest to the name's; None for the name's own."""
    if rng.random() < NAMED:
        return None
    own, other = COLOURS[name], rng.choice(list(COLOURS.values()))
    while True:
        share, shift = rng.uniform(0.0, 0.5), rng.uniform(-0.08, 0.08)
        mixed = tuple(min(max(a + share * (b - a) + shift, 0.02), 0.98) for a, b in zip(own, other, strict=True))
        if nearest(mixed) == name:
            return mixed  # type: ignore[return-value]


def nearest(colour: tuple[float, ...]) -> str:
    """The name of the nearest colour that has one."""
    return min(COLOURS, key=lambda name: math.dist(COLOURS[name], colour))


def sample_backdrop(rng: random.Random, paint: Rgb) -> Backdrop:
    """A background that a shape of this colour stands out against."""
    while True:
        first = _tint(rng, rng.uniform(0.06, 0.88))
        last = first
        if rng.random() < 0.45:
            level = min(max(sum(first) / 3 + rng.uniform(-0.35, 0.35), 0.04), 0.92)
            last = _tint(rng, level)
        middle = tuple((a + b) / 2 for a, b in zip(first, last, strict=True))
        if min(math.dist(paint, each) for each in (first, last, middle)) > STANDS_OUT:
            break
    texture: Texture = rng.choice(TEXTURES) if rng.random() < 0.5 else ""
    return Backdrop(
        tints=(first, last),
        angle=rng.uniform(0, 2 * math.pi),
        texture=texture,
        strength=rng.uniform(*STRENGTHS) if texture else 0.0,
        scale=rng.uniform(*SCALES[texture]) if texture else 8.0,
        turn=rng.uniform(0, math.pi),
        seed=rng.randrange(2**31),
    )


def _tint(rng: random.Random, level: float) -> Rgb:
    """A grey with a tint, mostly faint."""
    strength = rng.choice((0.0, 0.04, 0.1, 0.2))
    r, g, b = (min(max(level + rng.uniform(-strength, strength), 0.02), 0.95) for _ in range(3))
    return (level, level, level) if strength == 0 else (r, g, b)
