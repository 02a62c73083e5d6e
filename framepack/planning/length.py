"""How many latent frames a length in seconds takes, and which decoded frames are kept where it is to be exact."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..errors import PlanError, quoted
from ..schedule.grammar import Schedule
from ..units import RELEASED, Geometry
from .plan import MAX_LAT_FRAMES

MAX_FPS = 240

Beginning = Literal["image", "video", "section", "zero"]  # what a video begins with


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """What a video's ends are: whether a video that it leads up to, or an end image, stands at its end."""

    begins: Beginning = "image"
    backwards: bool = False
    end_image: bool = False

    @property
    def free(self) -> Literal["start", "end"] | None:
        """The end at which decoded frames may be cut. None where images or a video stand at both."""
        if not (self.backwards or self.end_image):
            return "end"
        return "start" if self.begins in ("section", "zero") else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """Latent frames that are generated, the start frame among them, in so many sections.

    Of their frames, `cut` are left out: at the start, or at the end. They are 0 for whole sections.
    """

    num_lat_frames: int
    num_sections: int
    num_pix_frames: int
    cut: int = 0
    cut_at: Literal["start", "end"] = "end"

    @property
    def num_kept(self) -> int:
        """Frames of the video that are kept, of those that are generated."""
        return self.num_pix_frames - self.cut

    def kept(self, num_pix_frames: int) -> tuple[int, int] | None:
        """The range that is kept of a whole video of so many frames, an extended one among them; None for all."""
        if not self.cut:
            return None
        return (self.cut, num_pix_frames) if self.cut_at == "start" else (0, num_pix_frames - self.cut)


def whole_length(seconds: float, fps: float, generate: int, ends: Ends, geometry: Geometry = RELEASED) -> Length:
    """The nearest number of whole sections. Raises PlanError."""
    most = _most(seconds, fps, generate, geometry)
    return _sections(min(geometry.num_sections(seconds, fps, generate), most), generate, ends.begins, geometry)


def exact_length(seconds: float, fps: float, generate: int, ends: Ends, geometry: Geometry = RELEASED) -> Length:
    """Whole sections, as many as it takes, with the frames beyond the length cut at the free end.

    Without a free end the section that is generated last is shorter, and less than one latent frame is cut. Raises
    PlanError.
    """
    _most(seconds, fps, generate, geometry)
    wanted, more = max(round(seconds * fps), 1), geometry.section_frames(generate)
    first = _sections(1, generate, ends.begins, geometry)
    count = 1 + max(math.ceil((wanted - first.num_pix_frames) / more), 0)
    found = _sections(count, generate, ends.begins, geometry)
    if ends.free is None and not geometry.sections_are_clips:
        spare = min((found.num_pix_frames - wanted) // geometry.temporal, generate * count - 1)
        found = Length(
            num_lat_frames=found.num_lat_frames - spare,
            num_sections=count - spare // generate,
            num_pix_frames=found.num_pix_frames - spare * geometry.temporal,
        )
    if found.num_lat_frames > MAX_LAT_FRAMES:
        raise PlanError(f"A video has at most {MAX_LAT_FRAMES} latent frames. Choose a shorter length.")
    return Length(
        num_lat_frames=found.num_lat_frames,
        num_sections=found.num_sections,
        num_pix_frames=found.num_pix_frames,
        cut=found.num_pix_frames - wanted,
        cut_at="start" if ends.backwards or ends.free == "start" else "end",
    )


def lat_frames_for(seconds: float, fps: float, schedule: Schedule, geometry: Geometry = RELEASED) -> int:
    """Latent frames of the nearest whole number of sections, start frame included. Raises PlanError."""
    return whole_length(seconds, fps, schedule.generate, Ends(), geometry).num_lat_frames


def _sections(count: int, generate: int, begins: Beginning, geometry: Geometry) -> Length:
    """The length of so many whole sections after what a video begins with."""
    own = {"image": 1, "section": 1, "video": 0, "zero": 0}[begins]
    first = geometry.temporal - 1 if begins == "zero" and not geometry.sections_are_clips else 0
    return Length(
        num_lat_frames=own + count * generate,
        num_sections=count,
        num_pix_frames=own + count * geometry.section_frames(generate) - first,
    )


def _most(seconds: float, fps: float, generate: int, geometry: Geometry) -> int:
    """The most sections that a video may have. Raises PlanError for a rate or a length out of bounds."""
    if not 0 < fps <= MAX_FPS:
        raise PlanError(f"The frame rate is above 0, at most {MAX_FPS} fps; got {quoted(fps)}. Try 30.")
    most = (MAX_LAT_FRAMES - 1) // generate
    longest = most * geometry.section_frames(generate) / fps
    if not 0 < seconds <= longest:
        raise PlanError(
            f"The length is above 0, at most {math.floor(longest)} s at {fps:g} fps; got {quoted(seconds)} s. Try 5."
        )
    return most
