"""Frames, positions and sections by index: consecutive ones are kept as ranges, in memory and in the plan's JSON.

A section of a long video may look at thousands of frames, but in few runs of consecutive ones. So a plan grows with its
sections, not with their square.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain, groupby, pairwise
from typing import Any, overload

from .json_fields import MAX_POSITION, int_of, list_of, object_of, slot_of

MAX_LISTED = 64  # consecutive indices that the plan's JSON lists one by one


class Runs(Sequence[Any]):
    """Items of which many are consecutive indices. Others, such as a slot's name, may stand among them."""

    __slots__ = ("_stops", "parts")

    def __init__(self, parts: Iterable[Sequence[Any]]) -> None:
        self.parts = tuple(parts)
        self._stops = tuple(accumulate(map(len, self.parts)))

    def __len__(self) -> int:
        return self._stops[-1]

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(self.parts)

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Any]: ...
    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return tuple(self)[place]
        index = range(len(self))[place]
        part = bisect_right(self._stops, index)
        return self.parts[part][index - self._stops[part]]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Runs) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash(self.parts)


def compact(items: Iterable[Any]) -> Sequence[Any]:
    """The items, ranges among them unfolded: a range if all are consecutive, Runs if many in a row are, else a tuple.

    The same items always have the same form, so that two forms are equal where their items are.
    """
    if isinstance(items, Runs) or (isinstance(items, range) and items.step == 1):
        return items or ()
    parts = _merged(items)
    if len(parts) == 1 and isinstance(parts[0], range):
        return parts[0]
    return Runs(parts) if any(map(_is_long, parts)) else tuple(chain.from_iterable(parts))


def _merged(items: Iterable[Any]) -> list[Sequence[Any]]:
    """The longest ranges of consecutive indices, and tuples of what stands between them."""
    found: list[Sequence[Any]] = []
    for kind, group in groupby(items, key=type):
        alike = tuple(group)
        parts = _consecutive(alike) if kind is int else filter(len, alike) if kind is range else [alike]
        for part in parts:
            last = found[-1] if found else None
            if isinstance(last, range) and isinstance(part, range) and last.stop == part.start:
                found[-1] = range(last.start, part.stop)
            elif isinstance(last, tuple) and isinstance(part, tuple):
                found[-1] = last + part
            else:
                found.append(part)
    return found


def _consecutive(indices: tuple[int, ...]) -> list[range]:
    whole = range(indices[0], indices[0] + len(indices))
    if indices == tuple(whole):
        return [whole]
    breaks = [place for place, (one, after) in enumerate(pairwise(indices), 1) if after != one + 1]
    return [range(indices[i], indices[j - 1] + 1) for i, j in pairwise((0, *breaks, len(indices)))]


def outside(run: range, indices: Iterable[int]) -> Sequence[int]:
    """The indices of a range that are not among others."""
    inside = sorted({index for index in indices if index in run})
    starts, stops = [run.start, *(index + 1 for index in inside)], [*inside, run.stop]
    return compact(map(range, starts, stops))


def shifted(indices: Sequence[int], by: int) -> Sequence[int]:
    """Each index plus a number."""
    return compact(range(part.start + by, part.stop + by) for part in ranges(indices))


def ranges(items: Sequence[Any]) -> Iterator[range]:
    """The indices among the items, in ranges."""
    return (part for part in _parts(items) if isinstance(part, range))


def names(items: Sequence[Any]) -> set[str]:
    """The names among the items."""
    return {item for part in _parts(items) if isinstance(part, tuple) for item in set(part) if isinstance(item, str)}


def _parts(items: Sequence[Any]) -> Sequence[Sequence[Any]]:
    return [items] if isinstance(items, range) else items.parts if isinstance(items, Runs) else _merged(items)


def to_data(items: Sequence[Any]) -> Any:
    """As in the plan's JSON: a list in which an object of its ends stands for a long range; the object, if alone."""
    if isinstance(items, range):
        return _ends(items) if _is_long(items) else list(items)
    if not isinstance(items, Runs):
        return list(items)
    return list(chain.from_iterable([_ends(part)] if _is_long(part) else part for part in items.parts))


def from_data(data: object, what: str, least: int, *, slots: bool = False) -> Sequence[Any]:
    """Indices from `least` on from the plan's JSON; with `slots`, null and names too. Raises PlanError."""

    def read(item: object) -> Any:
        if isinstance(item, dict):
            ends = object_of(item, "A range", {"start", "stop"}, set())
            return range(*(int_of(ends[end], f"A range's {end}", least) for end in ("start", "stop")))
        if slots and item is None:
            return None
        return slot_of(item) if slots and isinstance(item, str) else int_of(item, what, least)

    items = [data] if isinstance(data, dict) else list_of(data, what)
    numbers = [item for item in items if item is not None] if slots else items
    valid = numbers and {int}.issuperset(map(type, numbers)) and least <= min(numbers) and max(numbers) <= MAX_POSITION
    return compact(items if valid else map(read, items))  # most are numbers, and a plan may have millions


def _is_long(part: Sequence[Any]) -> bool:
    return isinstance(part, range) and len(part) > MAX_LISTED


def _ends(run: range) -> dict[str, int]:
    return {"start": run.start, "stop": run.stop}
