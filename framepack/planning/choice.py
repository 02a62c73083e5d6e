"""Frames of history that are chosen when a section is sampled, and how a section's slots are filled by rank.

The paper's later version sorts history by how alike it is to what is about to be generated (equations 3 to 5) and
fills the schedule's slots in that order. The latents decide, so a plan states the candidates and what is compared;
`refilled` fills the slots once a ranking is known. Until then they hold the nearest frames in time. Frames that are
pinned come first. Each frame keeps its true position. Indices are latent frames, ranges half open.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..errors import PlanError, quoted
from ..schedule.grammar import Side
from ..units import Kernel
from .indices import outside, shifted
from .json_fields import MAX_POSITION, int_of, ints_of, list_of, object_of, slot_of

if TYPE_CHECKING:
    from .section import Context, Frame, Section

Estimate = Literal["first steps", "nearest section", "same prompt"]
ESTIMATES: tuple[Estimate, ...] = get_args(Estimate)
FIRST_STEPS: Estimate = ESTIMATES[0]
EARLY = 0.2  # share of the steps after which the section's own x0 is looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """A frame of the video, or a slot's name for an image, that always has a slot; of a kernel, where it is named."""

    frame: int | str
    kernel: Kernel | None = None

    def to_data(self) -> list[Any]:
        """As in the plan's JSON: the frame, and the kernel or null."""
        return [self.frame, [self.kernel.t, self.kernel.h, self.kernel.w] if self.kernel else None]

    @classmethod
    def from_data(cls, data: object) -> Pinned:
        """From the plan's JSON. Raises PlanError."""
        pair = list_of(data, "A pinned frame")
        if len(pair) != 2:
            raise PlanError(f"A pinned frame is a pair of a frame and a kernel or null; got {quoted(data)}.")
        frame = slot_of(pair[0]) if isinstance(pair[0], str) else int_of(pair[0], "A pinned frame", 0)
        sides = None if pair[1] is None else ints_of(pair[1], "A kernel's side", 1)
        if sides is not None and len(sides) != 3:
            raise PlanError(f"A kernel is [t, h, w]; got {quoted(pair[1])}. Try [1, 2, 2].")
        return cls(frame=frame, kernel=Kernel(*sides) if sides else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choosing:
    """How a plan's sections choose; the fields are Choice's."""

    by: str
    estimate: Estimate = FIRST_STEPS
    time_weight: float = 0.0
    seconds: float = 4 / 30

    def over(self, side: Side, slots: Sequence[int], known: range, generate: int) -> Choice:
        """A section's choice of the frames known on a side; sections make so many frames."""
        stop = known.stop
        frames = range(max(known.start, 0), stop) if stop > max(known.start, 0) else range(max(stop, 0), max(stop, 0))
        near = frames[-generate:] if side == "past" else frames[:generate]
        return Choice(
            by=self.by,
            side=side,
            slots=tuple(slots),
            candidates=frames,
            estimate=self.estimate,
            reference=None if self.estimate == FIRST_STEPS or not near else near,
            time_weight=self.time_weight,
            seconds=self.seconds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What fills some of a section's contexts. Raises PlanError.

    `by` names the strategy. `slots` are the numbers of the contexts, the most important first, all on one `side`.
    `candidates` are the frames to choose from; `reference` those that stand for the section, None for its own first
    steps. `time_weight` is lambda of equation 5, `seconds` how long a latent frame lasts.
    """

    by: str
    side: Side
    slots: tuple[int, ...]
    candidates: range
    estimate: Estimate = FIRST_STEPS
    reference: range | None = None
    time_weight: float = 0.0
    seconds: float = 4 / 30
    pinned: tuple[Pinned, ...] = ()

    def __post_init__(self) -> None:
        if self.estimate not in ESTIMATES:
            raise PlanError(f"The estimate is one of: {', '.join(ESTIMATES)}; got {quoted(self.estimate)}.")
        if not self.time_weight >= 0:
            raise PlanError(f"time_weight must be a number from 0 on; got {self.time_weight:g}. Try 1.")
        if not 0 < self.seconds < math.inf:
            raise PlanError(f"A latent frame lasts more than 0 seconds; got {self.seconds:g}.")
        if self.side not in get_args(Side):
            raise PlanError(f"A choice's side is one of: {', '.join(get_args(Side))}; got {quoted(self.side)}.")

    @property
    def nearest(self) -> int:
        """The frame next to the section; the first candidate, where there is one."""
        return self.candidates.stop - 1 if self.side == "past" else self.candidates.start

    @property
    def by_time_alone(self) -> bool:
        """Are the latents of no account?"""
        return self.time_weight == math.inf

    @property
    def runs(self) -> Iterator[range]:
        """The frames of the video that it looks at, in ranges."""
        yield self.candidates
        if self.reference is not None:
            yield self.reference
        yield from (range(p.frame, p.frame + 1) for p in self.pinned if isinstance(p.frame, int))

    @property
    def images(self) -> set[str]:
        """The slots of pinned images."""
        return {p.frame for p in self.pinned if isinstance(p.frame, str)}

    def by_time(self) -> range:
        """The candidates, the nearest first."""
        return self.candidates[::-1] if self.side == "past" else self.candidates

    def ranked(self, likeness: Mapping[int, float] | Sequence[float]) -> Sequence[int]:
        """The candidates, most important first: by likeness (mean cosine) plus lambda exp(-dt^2); ties by time."""
        nearest = self.by_time()
        if self.by_time_alone:
            return nearest
        first = 0 if isinstance(likeness, Mapping) else self.candidates.start
        scores = {frame: likeness[frame - first] for frame in nearest}
        if self.time_weight:
            for away, frame in enumerate(nearest, 1):
                scores[frame] += self.time_weight * math.exp(-((away * self.seconds) ** 2))
        return sorted(nearest, key=scores.__getitem__, reverse=True)  # stable: the nearest of equals stays first

    def to_dict(self) -> dict[str, Any]:
        """As in the plan's JSON."""
        out: dict[str, Any] = {
            "by": self.by,
            "side": self.side,
            "slots": list(self.slots),
            "candidates": [self.candidates.start, self.candidates.stop],
            "estimate": self.estimate,
            "reference": None if self.reference is None else [self.reference.start, self.reference.stop],
            "time_weight": "inf" if self.by_time_alone else self.time_weight,
            "seconds": self.seconds,
        }
        return out | ({"pinned": [p.to_data() for p in self.pinned]} if self.pinned else {})

    @classmethod
    def from_dict(cls, data: object) -> Choice:
        """From the plan's JSON. Raises PlanError."""
        names = {"by", "side", "slots", "candidates", "estimate", "reference", "time_weight", "seconds"}
        fields = object_of(data, "A choice", names, {"pinned"})
        reference, weight = fields["reference"], fields["time_weight"]
        return cls(
            by=slot_of(fields["by"]),
            side=fields["side"],
            slots=ints_of(fields["slots"], "A choice's slot", 0),
            candidates=_range(fields["candidates"]),
            estimate=fields["estimate"],
            reference=None if reference is None else _range(reference),
            time_weight=math.inf if weight == "inf" else _number(weight, "time_weight"),
            seconds=_number(fields["seconds"], "A latent frame's length in seconds"),
            pinned=tuple(Pinned.from_data(p) for p in list_of(fields.get("pinned", []), "Pinned frames")),
        )


def _range(data: object) -> range:
    pair = ints_of(data, "A range's end", 0)
    if len(pair) != 2:
        raise PlanError(f"A range is a pair such as [28, 37]; got {quoted(data)}.")
    return range(*pair)


def _number(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_POSITION:
        raise PlanError(f"{what} is a number from 0 to {MAX_POSITION}; got {quoted(value)}.")
    return float(value)


def refilled(section: Section, choice: Choice, ranking: Sequence[int]) -> Section:
    """The section with the choice made: its slots filled by rank, pinned frames first; its tail is the candidates left.

    The slot next to the section is not given to a pinned frame unless the frame's kernel asks for it, so that the
    section still joins its neighbour. Raises PlanError where pinned frames have too few slots.
    """
    taken = _placed(section, choice)
    pinned = {p.frame for p in choice.pinned}
    left = iter(ranking)
    context = list(section.context)
    for index in choice.slots:
        room = len(context[index].frames) - len(taken[index])
        chosen = list(islice((frame for frame in left if frame not in pinned), room))
        context[index] = _filled(context[index], choice, [*taken[index], *chosen], _offset(section, choice))
    for index, each in enumerate(context):
        if each.tail:
            others = {f for c in context if not c.tail for f in c.frames if isinstance(f, int)}
            context[index] = _tail(each, outside(choice.candidates, others), _offset(section, choice))
    return replace(section, context=tuple(context), choice=None)


def _offset(section: Section, choice: Choice) -> int:
    """Position less frame, on the choice's side: the slot next to the section stands for the nearest candidate."""
    place = section.context[choice.slots[0]].positions
    return (place[-1] if choice.side == "past" else place[0]) - choice.nearest


def _placed(section: Section, choice: Choice) -> dict[int, list[int | str]]:
    """Pinned frames by context."""
    taken: dict[int, list[int | str]] = {
        index: [frame for frame in section.context[index].frames if isinstance(frame, str)] for index in choice.slots
    }
    for pin in sorted(choice.pinned, key=lambda pin: pin.kernel is None):  # those that name a kernel first
        kernels = [i for i in choice.slots if pin.kernel in (None, section.context[i].kernel)]
        spare = 0 if pin.kernel else 1
        free = (
            i
            for i in kernels
            if len(taken[i]) + (spare if i == choice.slots[0] else 0) < len(section.context[i].frames)
        )
        index = next(free, None)
        if index is None:
            where = f"a slot of kernel {pin.kernel}" if pin.kernel else "a slot beyond the nearest one"
            raise PlanError(
                f"The pinned frame {quoted(pin.frame)} has no room: the schedule has too few of {where}. Pin fewer "
                "frames, or name another kernel."
            )
        taken[index].append(pin.frame)
    return taken


def _filled(context: Context, choice: Choice, chosen: Sequence[int | str], offset: int) -> Context:
    """A context with these frames in video time; images and empty slots lie on its far side, as planned."""
    times = sorted(frame for frame in chosen if isinstance(frame, int))
    images = [frame for frame in chosen if isinstance(frame, str)]
    empty: list[Frame] = [None] * (len(context.frames) - len(chosen))
    frames: list[Frame] = [*empty, *images, *times] if choice.side == "past" else [*times, *images, *empty]
    places = [
        frame + offset if isinstance(frame, int) else planned
        for frame, planned in zip(frames, context.positions, strict=True)
    ]
    return replace(context, frames=frames, positions=places)


def _tail(context: Context, rest: Sequence[int], offset: int) -> Context:
    """A tail of the frames that were not chosen; as it was where all were."""
    if not rest:
        return context
    return replace(context, frames=rest, positions=shifted(rest, offset))


__all__ = ["EARLY", "ESTIMATES", "FIRST_STEPS", "Choice", "Choosing", "Estimate", "Pinned", "refilled"]
