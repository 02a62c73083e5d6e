"""Start-end contrast of any measure (paper section 4.3.2, equation 4): how far a video's end is from its beginning."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import FramePackError, VideoError
from .cuts import Cuts
from .frames import Clip, chained
from .measures import MEASURES, Measure

SHARE = 0.15  # of the frames, at either end
CUTS = "cuts"  # shots are counted, not contrasted


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A measure over a video: `values` ``t``, NaN where a frame has none."""

    measure: Measure
    values: np.ndarray

    @property
    def mean(self) -> float:
        """Over the whole video."""
        return _mean(self.values)

    @property
    def start(self) -> float:
        """Over the first 15 % of the frames."""
        return _mean(self.values[: ends(len(self.values))])

    @property
    def end(self) -> float:
        """Over the last 15 % of the frames."""
        return _mean(self.values[-ends(len(self.values)) :])

    @property
    def contrast(self) -> float:
        """The start-end contrast, |start - end|; NaN where an end has no value."""
        return abs(self.start - self.end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All curves of one video, and the frames at which a new shot begins, where they were looked for."""

    name: str
    fps: float
    num_pix_frames: int
    height: int
    width: int
    curves: tuple[Curve, ...]
    cuts: tuple[int, ...] | None = None

    def to_dict(self, values: bool = True) -> dict[str, Any]:
        """As JSON data; NaN is null. `values`: every frame's own too."""
        return {
            "video": self.name,
            "fps": self.fps,
            "num_pix_frames": self.num_pix_frames,
            "height": self.height,
            "width": self.width,
            "cuts": None if self.cuts is None else list(self.cuts),
            "measures": {curve.measure.name: _curve(curve, values) for curve in self.curves},
        }

    def to_json(self, values: bool = True) -> str:
        """The report as one JSON object."""
        return json.dumps(self.to_dict(values), allow_nan=False)


def measure(clip: Clip, names: Sequence[str], known: Mapping[str, Measure] = MEASURES) -> Report:
    """Measure a clip in one pass, a frame at a time. `names` of `known` measures, and `cuts`.

    Raises FramePackError for an unknown name, VideoError for a video of fewer than two frames, and
    MissingPackageError.
    """
    chosen = [known[name] for name in check_names(names, known) if name != CUTS]
    apart = [max(round(one.seconds * clip.fps), 1) for one in chosen]
    values: list[list[float]] = [[] for _ in chosen]
    cuts = Cuts() if CUTS in names else None
    index = -1
    for index, frame in enumerate(chained(clip.frames)):
        for one, every, column in zip(chosen, apart, values, strict=True):
            column.append(one.of(frame) if index % every == 0 else math.nan)
        if cuts:
            cuts.add(frame.small)
    if index < 1:
        raise VideoError(f"{clip.name} has {index + 1} frame(s); drift needs two or more. Give a longer video.")
    for one, column in zip(chosen, values, strict=True):
        column[-1] = one.of(frame)  # so that the end of a short video has a value
    return Report(
        name=clip.name,
        fps=clip.fps,
        num_pix_frames=index + 1,
        height=clip.height,
        width=clip.width,
        curves=tuple(Curve(measure=one, values=np.array(v)) for one, v in zip(chosen, values, strict=True)),
        cuts=cuts.found() if cuts else None,
    )


def check_names(names: Iterable[str], known: Mapping[str, Measure] = MEASURES) -> tuple[str, ...]:
    """The names, if each is a measure. Raises FramePackError with the list of measures."""
    names = tuple(names)
    for name in names:
        if name != CUTS and name not in known:
            raise FramePackError(f"There is no measure {name!r:.40}. Choose from: {', '.join((*known, CUTS))}.")
    return names


def ends(num: int) -> int:
    """How many of so many frames make up either end: 15 %, one at least."""
    return max(round(SHARE * num), 1)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _curve(curve: Curve, values: bool) -> dict[str, Any]:
    fields = {name: _number(getattr(curve, name)) for name in ("mean", "start", "end", "contrast")}
    fields["unit"] = curve.measure.unit  # type: ignore[assignment]
    return fields | ({"values": [_number(value) for value in curve.values]} if values else {})


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)
