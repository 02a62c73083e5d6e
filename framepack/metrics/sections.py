"""How a section of a video compares with the video's start, as it is made: colour, contrast, sharpness, motion.

Dims: t frames, h w pixels. Frames are ``h w 3``, RGB, uint8.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np

from ..errors import VideoError
from .frames import chained
from .measures import MEASURES

LOOKED_AT = {"contrast": "contrast", "sharpness": "sharpness", "motion": "dynamic"}  # measures of MEASURES


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionDrift:
    """A section against the start: 0 for no change.

    `colour` is the distance of mean colours (CIE 1976, about 2 is just visible). The others are changes as a share
    of the start: 0.2 is a fifth more, -0.2 a fifth less. None where there is nothing to compare, such as no motion.
    """

    colour: float
    contrast: float | None
    sharpness: float | None
    motion: float | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What some neighbouring frames look like: mean Lab, and means of measures; NaN-free, None for no value."""

    colour: tuple[float, float, float]
    values: Mapping[str, float | None]

    @classmethod
    def of(cls, frames: Iterable[np.ndarray]) -> Look:
        """Of frames in order of time. Raises VideoError for none, MissingPackageError without OpenCV."""
        colours: list[np.ndarray] = []
        values: dict[str, list[float]] = {name: [] for name in LOOKED_AT}
        for frame in chained(frames):
            colours.append(frame.lab.mean((0, 1)))
            for name, column in values.items():
                _add(column, MEASURES[LOOKED_AT[name]].of(frame))
        if not colours:
            raise VideoError("A section has one frame or more; got none. Decode it first.")
        mean = np.mean(colours, axis=0)
        means = {name: fmean(column) if column else None for name, column in values.items()}
        return cls(colour=(float(mean[0]), float(mean[1]), float(mean[2])), values=means)

    def against(self, start: Look) -> SectionDrift:
        """How far it is from the start."""
        colour = float(np.linalg.norm(np.subtract(self.colour, start.colour)))
        changes = {name: _change(value, start.values[name]) for name, value in self.values.items()}
        return SectionDrift(colour=colour, **changes)


def section_drift(frames: Iterable[np.ndarray], start: Iterable[np.ndarray] | Look) -> SectionDrift:
    """A section's frames against the frames of the video's start, or what they look like.

    Raises VideoError for no frames, and MissingPackageError without OpenCV.
    """
    return Look.of(frames).against(start if isinstance(start, Look) else Look.of(start))


def _add(column: list[float], value: float) -> None:
    if not np.isnan(value):
        column.append(value)


def _change(value: float | None, start: float | None) -> float | None:
    if value is None or start is None or start < 1e-6:
        return None
    return value / start - 1
