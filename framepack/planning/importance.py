"""Which history frames go through which kernel: strategies that fill an order's slots. A new one is a class here.

An order states the slots: a side, the groups on it with their kernels, and the frames that are known there. A
strategy fills them. Positions belong to the slots, not to the frames, so that every strategy keeps a model's layout.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..schedule.grammar import Group, Side
from .section import Frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """A side's slots: the frames of each group, in video time, and the known frames that are in none, its tail."""

    groups: tuple[Sequence[Frame], ...]
    rest: Sequence[int]


class Importance:
    """A strategy; a plan records its `name`."""

    name: str
    looks = False  # does it look at latents, and so choose when a section is sampled?

    def fill(self, side: Side, groups: Sequence[Group], known: range) -> Filled:
        """Frames of `known` for the groups of a side, given in video time; None for slots that no frame fills."""
        raise NotImplementedError


class ByTime(Importance):
    """The nearest frames in time, as the released models were trained (paper section 3.1)."""

    name = "by_time"

    def fill(self, side: Side, groups: Sequence[Group], known: range) -> Filled:
        """Frames side by side, from the generated ones outwards."""
        start = known.stop - length(groups) if side == "past" else known.start
        rest = range(known.start, start) if side == "past" else range(start + length(groups), known.stop)
        return Filled(groups=side_by_side(groups, start, known), rest=rest)


class Similarity(ByTime):
    """The frames most alike to what is about to be generated (paper v3, equation 3); the nearest until it is known."""

    name, looks = "similarity", True


class Hybrid(Similarity):
    """Likeness and nearness in time together (paper v3, equation 5)."""

    name = "hybrid"


def side_by_side(groups: Iterable[Group], frame: int, known: range) -> tuple[Sequence[Frame], ...]:
    """Neighbouring frames from a frame on; None for those that are not known, such as frame -1, a zero latent."""
    first, stop, found = max(known.start, 0), known.stop, []
    for group in groups:
        frames = range(frame, frame + group.num_lat_frames)
        whole = first <= frames.start and frames.stop <= stop
        found.append(frames if whole else [each if first <= each < stop else None for each in frames])
        frame = frames.stop
    return tuple(found)


def length(groups: Iterable[Group]) -> int:
    """The frames of all groups."""
    return sum(group.num_lat_frames for group in groups)


IMPORTANCE = {strategy.name: strategy for strategy in (ByTime(), Similarity(), Hybrid())}
