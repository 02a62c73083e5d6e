"""What a video is planned from: its length, what it begins with and leads to, endpoints, and a video to extend.

Latent frame 0 is the start frame: a start image, else the first frame of a video that is extended forwards, else the
work of one extra first section from text alone, else, as in the released models, a zero latent that is no part of the
video. Where sections are clips, a video begins with its first section, and a start image is context only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from ..errors import PlanError, quoted
from ..schedule.grammar import Schedule
from ..units import RELEASED, Geometry
from .choice import FIRST_STEPS, Choosing, Estimate
from .gaps import Gap
from .importance import IMPORTANCE, ByTime, Hybrid
from .layout import Layout
from .length import MAX_FPS, Beginning, Ends, Length, exact_length, lat_frames_for, whole_length
from .orders import ORDERS, Order, order_of
from .pins import Pin
from .plan import MAX_LAT_FRAMES

START, END, VIDEO = "start", "end", "video"  # slots
# Of videos whose sections are clips: the last latent of a still of the start image; an extended video's first frame.
STILL, FIRST = "still", "first"
__all__ = ["MAX_FPS", "Endpoint", "Extension", "PlanRequest", "lat_frames_for"]
INVERTED = "an inverted schedule, such as f1k1_x_g9_f1k1f2k2f16k4_td"
MAX_SECONDS = 1200

NoStart = Literal["section", "zero"]
Direction = Literal["forwards", "backwards"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """A finished video of so many latent frames, and the direction in which it is extended.

    `clips` are the lengths of the clips that it was encoded in, where sections are clips.
    """

    num_lat_frames: int
    direction: Direction
    clips: tuple[int, ...] = ()

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


def beginning(start: bool, no_start: NoStart, extend: Extension | None, geometry: Geometry = RELEASED) -> Beginning:
    """What a video begins with; `zero` where nothing of it stands before its first section."""
    if extend is not None and extend.direction == "forwards":
        return "video"
    if geometry.sections_are_clips:
        return "zero"
    return "image" if start else no_start


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """A video of so many latent frames, the start frame and an extended video's included.

    `start`: it begins with a start image; without one, `no_start` says whether a section makes latent frame 0 or a
    zero latent stands before it. `end`: an end image is context only. `gap`: a gap rule, or None for the order's own.
    `order`: a name of ORDERS, or None for the schedule's own; `importance`: a name of IMPORTANCE; `estimate` and
    `time_weight` (lambda of equation 5) are for those that look at latents, and `fps` for the time between frames.
    `pins`: references that sections see whatever their importance. `extend`: a finished video to extend; where it is
    extended forwards, its own frames begin the video, whatever `start` says. `height` and `width` are pixels.
    `geometry` is the backbone's. `kept`: the decoded frames that are kept, all if None. Raises PlanError, and
    LatentSizeError for a size off its unit.
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
    kept: tuple[int, int] | None = None
    estimate: Estimate = FIRST_STEPS
    time_weight: float = 1.0
    fps: float = 30.0
    pins: tuple[Pin, ...] = ()

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
    def lasting(
        cls, seconds: float, fps: float, *, schedule: Schedule, exact: bool = False, **options: Any
    ) -> PlanRequest:
        """The request of a video whose generated part lasts so many seconds: whole sections, or exact to the frame.

        Endpoints that state their seconds are placed by them where the video's start is cut. Where sections are clips,
        endpoints stand between whole sections.
        """
        length = length_of(seconds, fps, schedule=schedule, exact=exact, **options)
        extend, geometry = options.get("extend"), options.get("geometry", RELEASED)
        whole = length.num_pix_frames + _frames_of(extend, geometry, schedule.generate)
        between = len(options.get("endpoints", ())) if geometry.sections_are_clips else 0
        if length.cut and length.cut_at == "start" and not between:
            moved = (_moved(point, fps, length.cut, geometry) for point in options.get("endpoints", ()))
            options["endpoints"] = tuple(moved)
            options["pins"] = tuple(pin.moved(-(-length.cut // geometry.temporal)) for pin in options.get("pins", ()))
        num = length.num_lat_frames + (extend.num_lat_frames if extend else 0) + between
        kept = length.kept(whole) or ((0, whole) if exact and between else None)
        return cls(schedule=schedule, num_lat_frames=num, kept=kept, fps=fps, **options)

    @property
    def begins(self) -> Beginning:
        """What the video begins with."""
        return beginning(self.start, self.no_start, self.extend, self.geometry)

    @property
    def has_still(self) -> bool:
        """Does a still of the start image stand before the first section?"""
        return self.geometry.sections_are_clips and self.start and self.begins != "video"

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
        return Layout(schedule=self.schedule, gap=gap, importance=IMPORTANCE[self.importance], choosing=self.choosing)

    @property
    def choosing(self) -> Choosing | None:
        """How sections choose their history; None where time alone decides it."""
        if not (IMPORTANCE[self.importance].looks or self.pins):
            return None
        return Choosing(
            by=self.importance,
            estimate=self.estimate,
            time_weight=self.time_weight if self.importance == Hybrid.name else 0.0,
            seconds=self.geometry.temporal / self.fps,
        )

    @property
    def clips(self) -> tuple[int, ...]:
        """The lengths of the clips of the extended video: its own, or those of sections. Empty if it is one clip."""
        if self.extend is None or not self.geometry.sections_are_clips:
            return ()
        generate = self.schedule.generate
        return self.extend.clips or (generate,) * (self.extend.num_lat_frames // generate)

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
        self._check_kept(points)
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

    def _check_kept(self, points: Sequence[Endpoint]) -> None:
        """Raises PlanError for an endpoint among frames that are cut."""
        for point in points[1:] if self.kept and not self.geometry.sections_are_clips else ():
            last = self.geometry.pixel_frames(point.frame + 1)  # the frame after its own
            if last <= self.kept[0] or last - self.geometry.temporal >= self.kept[1]:
                num = self.kept[1] - self.kept[0]
                raise PlanError(f"Endpoints lie among the {num} frames that are kept; got one at {point}. Move it.")

    def _check_order(self) -> None:
        if self.num_lat_frames < 2 and self.begins == "image":
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
        if self.geometry.sections_are_clips and sum(self.clips) != num:
            raise PlanError(
                f"The video to extend must be whole clips of {self.schedule.generate} latent frames, as sections are; "
                f"got {quoted(num)}. Encode it with FramePackVideoEncode, with the model connected."
            )
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


def length_of(seconds: float, fps: float, *, schedule: Schedule, exact: bool, **options: Any) -> Length:
    """The generated part's length by the fields of a request. Raises PlanError."""
    extend, geometry = options.get("extend"), options.get("geometry", RELEASED)
    ends = Ends(
        begins=beginning(options.get("start", True), options.get("no_start", "section"), extend, geometry),
        backwards=extend is not None and extend.direction == "backwards",
        end_image=options.get("end", False),
    )
    return (exact_length if exact else whole_length)(seconds, fps, schedule.generate, ends, geometry)


def _frames_of(extend: Extension | None, geometry: Geometry, generate: int) -> int:
    """Frames that an extended video adds to the generated ones."""
    if extend is None:
        return 0
    num = extend.num_lat_frames
    if geometry.sections_are_clips:
        return sum(map(geometry.pixel_frames, extend.clips or (generate,) * (num // generate)))
    return geometry.pixel_frames(num) if extend.direction == "forwards" else geometry.temporal * num


def _moved(point: Endpoint, fps: float, cut: int, geometry: Geometry) -> Endpoint:
    """An endpoint in a video whose first frames are cut."""
    if point.seconds is None:
        return point
    return replace(point, frame=-(-(round(point.seconds * fps) + cut) // geometry.temporal))
