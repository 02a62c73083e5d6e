"""What a video is planned from: its length, what it begins with and leads to, endpoints, and a video to extend.

Latent frame 0 is the start frame: a start image, else the first frame of a video that is extended forwards, else the
work of one extra first section from text alone, else, as in the released models, a zero latent that is no part of the
video.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..errors import PlanError, quoted
from ..schedule.grammar import Schedule
from ..units import RELEASED, Geometry
from .gaps import Gap
from .importance import IMPORTANCE, ByTime
from .layout import Layout
from .orders import ORDERS, Order, order_of
from .plan import MAX_LAT_FRAMES

START, END, VIDEO = "start", "end", "video"  # slots
INVERTED = "an inverted schedule, such as f1k1_x_g9_f1k1f2k2f16k4_td"
MAX_FPS = 240
MAX_SECONDS = 1200

NoStart = Literal["section", "zero"]
Direction = Literal["forwards", "backwards"]
Beginning = Literal["image", "video", "section", "zero"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """A finished video of so many latent frames, and the direction in which it is extended."""

    num_lat_frames: int
    direction: Direction

    def __post_init__(self) -> None:
        if self.direction not in get_args(Direction):
            raise PlanError(f"The direction is one of {', '.join(get_args(Direction))}; got {quoted(self.direction)}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A planned endpoint at a latent frame: its image's slot, or None to generate it, and its prompt, or None.

    `seconds` is the time asked for, where it was one, for messages.
    """

    frame: int
    slot: str | None = None
    prompt: str | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        """Its place in time."""
        return f"latent frame {self.frame}" if self.seconds is None else f"{self.seconds:g} s"


def beginning(start: bool, no_start: NoStart, extend: Extension | None) -> Beginning:
    """What a video begins with."""
    if extend is not None and extend.direction == "forwards":
        return "video"
    return "image" if start else no_start


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """A video of so many latent frames, the start frame and an extended video's included.

    `start`: it begins with a start image; without one, `no_start` says whether a section makes latent frame 0 or a
    zero latent stands before it. `end`: an end image is context only. `gap`: a gap rule, or None for the order's own.
    `order`: a name of ORDERS, or None for the schedule's own; `importance`: a name of IMPORTANCE. `extend`: a finished
    video to extend; where it is extended forwards, its own frames begin the video, whatever `start` says. `height` and
    `width` are pixels. `geometry` is the backbone's. Raises PlanError, and LatentSizeError for a size off its unit.
    """

    schedule: Schedule
    num_lat_frames: int
    start: bool = True
    end: bool = False
    gap: str | None = None
    height: int | None = None
    width: int | None = None
    no_start: NoStart = "section"
    endpoints: tuple[Endpoint, ...] = ()
    order: str | None = None
    importance: str = ByTime.name
    extend: Extension | None = None
    geometry: Geometry = RELEASED

    def __post_init__(self) -> None:
        if not 1 <= self.num_lat_frames <= MAX_LAT_FRAMES:
            raise PlanError(
                f"A video has 2 to {MAX_LAT_FRAMES} latent frames (twenty minutes at 30 fps); got "
                f"{quoted(self.num_lat_frames)}. Choose another length."
            )
        if self.no_start not in get_args(NoStart):
            raise PlanError(f"no_start is one of {', '.join(get_args(NoStart))}; got {quoted(self.no_start)}.")
        if self.height is not None and self.width is not None:
            self.geometry.latent_grid(self.height, self.width)
        self._check_order()
        self._check_extension()
        object.__setattr__(self, "endpoints", tuple(sorted(self.endpoints, key=lambda point: point.frame)))

    @classmethod
    def lasting(cls, seconds: float, fps: float, *, schedule: Schedule, **options: Any) -> PlanRequest:
        """The request of a video whose generated part lasts so many seconds, rounded to whole sections."""
        extend = options.get("extend")
        begins = beginning(options.get("start", True), options.get("no_start", "section"), extend)
        geometry = options.get("geometry", RELEASED)
        made = lat_frames_for(seconds, fps, schedule, geometry) - (begins in ("video", "zero"))  # no start frame
        return cls(schedule=schedule, num_lat_frames=made + (extend.num_lat_frames if extend else 0), **options)

    @property
    def begins(self) -> Beginning:
        """What the video begins with."""
        return beginning(self.start, self.no_start, self.extend)

    @property
    def walk(self) -> Order:
        """The order in which gaps are filled."""
        return order_of(self.schedule) if self.order is None else ORDERS[self.order]

    @property
    def layout(self) -> Layout:
        """How sections are laid out. For vanilla schedules the gap rule `released` is F1's, which is `pinned`."""
        own = order_of(self.schedule).rule
        released = self.gap == "released" and self.schedule.order == "vanilla"
        gap = own if self.gap is None or released else Gap.parse(self.gap)
        return Layout(schedule=self.schedule, gap=gap, importance=IMPORTANCE[self.importance])

    @property
    def there(self) -> range:
        """The latent frames of the extended video; empty without one."""
        if self.extend is None:
            return range(0)
        num = self.extend.num_lat_frames
        return range(num) if self.begins == "video" else range(self.num_lat_frames - num, self.num_lat_frames)

    def points(self) -> list[Endpoint]:
        """All endpoints in time, the start first. Raises PlanError for endpoints out of place."""
        points, zero = list(self.endpoints), self.begins == "zero"
        started = self.begins in ("image", "video")
        if started or zero or not points or points[0].frame != 0:
            points.insert(0, Endpoint(frame=-1 if zero else 0, slot=START if started else None))
        for point in points[1:]:
            if not 0 < point.frame < self.num_lat_frames:
                raise PlanError(
                    f"Endpoints stand at latent frames 1 to {self.num_lat_frames - 1}, after the video's start; got "
                    f"{point}, which is latent frame {point.frame}. There is one latent frame for each "
                    f"{self.geometry.temporal} frames."
                )
        for before, after in zip(points, points[1:], strict=False):
            between = after.frame - before.frame - 1
            if between < 0 or 0 < between < self.schedule.generate:
                raise PlanError(
                    f"Endpoints stand side by side or {self.schedule.generate} latent frames apart, one section; got "
                    f"endpoints at {before} and {after}, with {max(between, 0)} between them. Move one of them."
                )
        if collided := [point for point in points[self.begins == "video" :] if point.frame in self.there]:
            raise PlanError(f"An endpoint lies outside the extended video; got one at {collided[0]}. Move it.")
        return points

    def _check_order(self) -> None:
        if self.num_lat_frames < 2 and self.start:
            raise PlanError("A video with a start image has 2 latent frames or more; got 1. Choose a longer video.")
        for name, known in (("order", ORDERS), ("importance", IMPORTANCE)):
            if (value := getattr(self, name)) is not None and value not in known:
                raise PlanError(f"The {name} is one of {', '.join(known)}; got {quoted(value)}.")
        if self.end and not self.schedule.future:
            raise PlanError(f"An end image needs {INVERTED}; got {self.schedule}, which is {self.schedule.order}.")
        if self.walk.needs_future and not (self.schedule.future or self.schedule.far_future):
            raise PlanError(f"The order {self.order} needs a schedule that sees the future; got {self.schedule}.")
        _ = self.layout

    def _check_extension(self) -> None:
        if self.extend is None:
            return
        num, direction = self.extend.num_lat_frames, self.extend.direction
        if not 0 < num < self.num_lat_frames:
            raise PlanError(
                f"A video to extend to {self.num_lat_frames} latent frames has 1 to {self.num_lat_frames - 1}; got "
                f"{quoted(num)}. Choose a longer video."
            )
        if direction == "backwards" and not self.schedule.future:
            raise PlanError(
                f"Extending backwards needs {INVERTED}; got {self.schedule}, which is {self.schedule.order}."
            )
        if direction == "forwards" and self.schedule.future and not self.end:
            raise PlanError(
                f"Extending forwards needs a schedule that sees the past, or an end image; got {self.schedule}, which "
                "is inverted. Try f1k1_x_f16k4f2k2f1k1_g9."
            )


def lat_frames_for(seconds: float, fps: float, schedule: Schedule, geometry: Geometry = RELEASED) -> int:
    """Latent frames of the nearest whole number of sections, start frame included. Raises PlanError."""
    if not 0 < fps <= MAX_FPS:
        raise PlanError(f"The frame rate is above 0, at most {MAX_FPS} fps; got {quoted(fps)}. Try 30.")
    most = (MAX_LAT_FRAMES - 1) // schedule.generate
    longest = most * geometry.section_frames(schedule.generate) / fps
    if not 0 < seconds <= longest:
        raise PlanError(
            f"The length is above 0, at most {math.floor(longest)} s at {fps:g} fps; got {quoted(seconds)} s. Try 5."
        )
    return 1 + min(geometry.num_sections(seconds, fps, schedule.generate), most) * schedule.generate
