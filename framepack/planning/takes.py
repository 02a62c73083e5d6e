"""Takes: which seed makes a section, and which finished take it is locked to. Text, one line for each section.

    2: 17            section 2 is made with seed 17
    2: 17, 5         the same; seed 5 made another take of it, which is kept beside
    3: 17 locked 0123456789abcdef   section 3 is that finished take, whatever changes elsewhere

Sections are numbered in order of generation, from 1, as the plan's picture and the sampler number them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import FramePackError, quoted
from .json_fields import list_of

MAX_TEXT = 100_000  # characters
MAX_SEED = 2**64 - 1
MAX_KEPT = 32  # seeds of one section
ID = re.compile(r"[0-9a-f]{16}")  # of a finished take: how its key in the section store begins
_LINE = re.compile(r"([0-9]{1,6}) *: *((?:[0-9]{1,20})(?: *, *[0-9]{1,20})*)?(?: *locked +(\S+))?", re.ASCII)
EXAMPLE = "Write a line such as 2: 17 for section 2 with seed 17."


class TakeError(FramePackError):
    """Takes that cannot be read, or that the plan has no section for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """What a section is made with: a seed, or None for the sampler's; the take that it is locked to, or None.

    `others` are seeds of takes that are kept beside it.
    """

    seed: int | None = None
    lock: str | None = None
    others: tuple[int, ...] = ()


Takes = Mapping[int, Take]  # by the section's index, from 0


def read_takes(text: str, num_sections: int | None = None) -> dict[int, Take]:
    """The takes of a text, by section index. Raises TakeError."""
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        what = len(text) if isinstance(text, str) else quoted(text)
        raise TakeError(f"Takes are text of at most {MAX_TEXT} characters; got {what}. {EXAMPLE}")
    found: dict[int, Take] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        if line[0] == "#":
            continue
        number, take = _read(line)
        if number in found:
            raise TakeError(f"Each section has one line of takes; got section {number} twice. Remove one.")
        if number < 1 or (num_sections is not None and number > num_sections):
            most = "" if num_sections is None else f" to {num_sections}"
            raise TakeError(f"Takes are of sections 1{most}; got section {number}. Remove {quoted(line)}.")
        found[number] = take
    return {number - 1: take for number, take in found.items()}


def _read(line: str) -> tuple[int, Take]:
    match = _LINE.fullmatch(line)
    if match is None or (match[2] is None and match[3] is None):
        raise TakeError(f"A line of takes is a section, a colon and a seed; got {quoted(line)}. {EXAMPLE}")
    if match[3] is not None and not ID.fullmatch(match[3]):
        raise TakeError(f"A locked take is named by 16 hexadecimal digits; got {quoted(match[3])}. Lock it again.")
    seeds = list(map(int, match[2].split(","))) if match[2] else []
    if len(seeds) > MAX_KEPT or any(seed > MAX_SEED for seed in seeds):
        raise TakeError(f"A section has at most {MAX_KEPT} seeds up to {MAX_SEED}; got {quoted(line)}. {EXAMPLE}")
    return int(match[1]), Take(seed=seeds[0] if seeds else None, lock=match[3], others=tuple(seeds[1:]))


def write_takes(takes: Takes) -> str:
    """The text that reads as these takes."""
    lines = []
    for index in sorted(takes):
        take = takes[index]
        seeds = ", ".join(map(str, (*([] if take.seed is None else [take.seed]), *take.others)))
        lines.append(
            f"{index + 1}: {seeds}{' ' if seeds and take.lock else ''}{f'locked {take.lock}' * bool(take.lock)}"
        )
    return "\n".join(lines)


def to_data(takes: Takes, sections: Iterable[int]) -> list[list[Any]]:
    """As in the JSON of a slice: index, seed and lock of each of these sections that has one."""
    return [[i, takes[i].seed, takes[i].lock] for i in sections if i in takes]


def from_data(data: object) -> dict[int, Take]:
    """From `to_data`. Raises PlanError, TakeError."""
    found = {}
    for entry in list_of(data, "The slice's takes"):
        match entry:
            case [int(index), (int() | None) as seed, (str() | None) as lock] if index >= 0:
                if (seed is None or 0 <= seed <= MAX_SEED) and (lock is None or ID.fullmatch(lock)):
                    found[index] = Take(seed=seed, lock=lock)
                    continue
        raise TakeError(f"A take is [section, seed, lock]; got {quoted(entry)}. SectionSampler places this node.")
    return found
