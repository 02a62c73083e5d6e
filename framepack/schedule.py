"""Schedule strings of the paper (section 4.1): parse, print, count.

A string such as ``f1k1_x_g9_f1k1f2k2f16k4_td`` lists, left earlier in time, groups of frames with the kernel that
each goes through, what is generated (g), what is skipped (x), and what becomes of the tail (td, ta, tc).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil
from typing import Literal

from .errors import ScheduleError
from .units import Kernel

Side = Literal["past", "future"]
Tail = Literal["td", "ta", "tc"]
Sampling = Literal["vanilla", "endpoint", "inverted"]

MAX_LENGTH = 400  # characters
MAX_FRAMES = 4096  # latent frames of one group: nine minutes
MAX_KERNEL = 64
TAIL_POOL = 32  # paper section 4.1: `append` pools each tail frame by (1, 32, 32)

_GROUP = re.compile(r"f([0-9]{1,12})k([0-9]{1,12})(?:h([0-9]{1,12})w([0-9]{1,12}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Neighbouring latent frames that go through one kernel; `side` is where they lie from what is generated."""

    num_lat_frames: int
    kernel: Kernel
    side: Side
    part: int  # groups of one part stand side by side in time

    def __str__(self) -> str:
        return f"f{self.num_lat_frames}{self.kernel}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A parsed schedule. `parts` are its groups, "x" and "g" in order of time, the tail apart."""

    parts: tuple[tuple[Group, ...] | Literal["x", "g"], ...]
    generate: int
    tail: Tail | None = None
    tail_side: Side | None = None

    @property
    def groups(self) -> tuple[Group, ...]:
        """All groups in order of time."""
        return tuple(g for part in self.parts if not isinstance(part, str) for g in part)

    @property
    def sampling(self) -> Sampling:
        """The order that the shape implies (paper section 3.3)."""
        at = self.parts.index("g")
        if "x" in self.parts[at:]:
            return "endpoint"
        return "inverted" if len(self.parts) > at + 1 else "vanilla"

    @property
    def main_part(self) -> tuple[Group, ...]:
        """The history: the groups next to what is generated."""
        at = self.parts.index("g")
        part = self.parts[at + 1] if self.sampling == "inverted" else (self.parts[at - 1] if at else ())
        return () if isinstance(part, str) else part

    @property
    def far_part(self) -> tuple[Group, ...]:
        """The groups beyond the skip: the start frame of inverted and forward schedules, the endpoint's ending."""
        if "x" not in self.parts:
            return ()
        part = self.parts[-1] if self.sampling == "endpoint" else self.parts[0]
        return () if isinstance(part, str) else part

    def tail_kernel(self) -> Kernel | None:
        """The kernel nearest to the tail."""
        groups = self.groups
        return None if self.tail is None or not groups else groups[0 if self.tail_side == "past" else -1].kernel

    def __str__(self) -> str:
        text = {"x": "x", "g": f"g{self.generate}"}
        names = [text[p] if isinstance(p, str) else "".join(map(str, p)) for p in self.parts]
        if self.tail:
            names.insert(0 if self.tail_side == "past" else len(names), self.tail)
        return "_".join(names)


def tail_frame_tokens(kernel: Kernel, height: int, width: int) -> int:
    """Tokens that `append` adds for N tail frames are ceil(N / t) times this; latent height and width."""
    return ceil(ceil(height / TAIL_POOL) / kernel.h) * ceil(ceil(width / TAIL_POOL) / kernel.w)


def num_tail_tokens(schedule: Schedule, num_tail: int, height: int, width: int) -> int:
    """Tokens of a tail of so many latent frames on a latent grid."""
    kernel = schedule.tail_kernel()
    if kernel is None or schedule.tail == "td" or num_tail == 0:
        return 0
    if schedule.tail == "tc":
        return kernel.num_tokens(1, height, width)
    return ceil(num_tail / kernel.t) * tail_frame_tokens(kernel, height, width)


def parse(text: str) -> Schedule:
    """Parse a schedule string. Raises ScheduleError with a caret under the fault."""
    if len(text) > MAX_LENGTH:
        raise ScheduleError(
            text, MAX_LENGTH, f"A schedule of {len(text)} characters came.", f"Expected {MAX_LENGTH} at most."
        )
    if not text:
        raise ScheduleError(text, 0, "An empty schedule came.", "Try f1k1_x_g9_f1k1f2k2f16k4_td.")
    found = _split(text)
    generates = [(at, value) for kind, at, value in found if kind == "g"]
    if not generates:
        raise ScheduleError(text, len(text), "The schedule generates nothing.", "Add one part such as g9.")
    if len(generates) > 1:
        raise ScheduleError(text, generates[1][0], "A second g part.", "Keep exactly one g part.")
    _check_order(text, found)
    return _build(text, found, generates[0][1])


def _split(text: str) -> list[tuple[str, int, object]]:
    """Each part as (kind, where it begins, value), kinds g, x, tail and f."""
    found: list[tuple[str, int, object]] = []
    at = 0
    for name in text.split("_"):
        if name in ("td", "ta", "tc"):
            found.append(("tail", at, name))
        elif name == "x":
            found.append(("x", at, None))
        elif re.fullmatch(r"g[0-9]{1,12}", name):
            found.append(("g", at, _bounded(text, at + 1, name[1:], MAX_FRAMES, "latent frames to generate")))
        elif name.startswith("f"):
            found.append(("f", at, _groups(text, at, name)))
        else:
            raise ScheduleError(text, at, f"Unknown part {_shown(name)}.", _remedy(name))
        at += len(name) + 1
    return found


def _remedy(name: str) -> str:
    if name.lower() != name and re.fullmatch(r"[A-Z0-9a-z]+", name):
        return f"Parts are lower case: {_shown(name.lower())}."
    if name in ("+d", "+D") or name.startswith("t"):
        return "A tail is td (delete), ta (append) or tc (compress), at the far left or right."
    return "Expected groups such as f16k4f2k2f1k1, g9, x, or a tail td, ta, tc, joined by _."


def _shown(name: str) -> str:
    return repr(name if len(name) <= 24 else name[:24] + "...")


def _bounded(text: str, at: int, digits: str, most: int, what: str) -> int:
    value = int(digits)
    if not 1 <= value <= most:
        raise ScheduleError(text, at, f"{digits} {what}.", f"Expected 1 to {most}.")
    return value


def _groups(text: str, at: int, name: str) -> list[tuple[int, Kernel]]:
    groups, place = [], 0
    while place < len(name):
        match = _GROUP.match(name, place)
        if not match:
            raise ScheduleError(
                text, at + place, f"No group begins with {_shown(name[place:])}.", "Expected one such as f16k4 or f1k1h4w4."
            )
        frames = _bounded(text, at + match.start(1), match[1], MAX_FRAMES, "latent frames in a group")
        groups.append((frames, _kernel(text, at, match)))
        place = match.end()
    return groups


def _kernel(text: str, at: int, match: re.Match[str]) -> Kernel:
    k = _bounded(text, at + match.start(2), match[2], MAX_KERNEL, "as a kernel's time")
    if match[3] is None:
        return Kernel.short(k)
    sides = [_bounded(text, at + match.start(i), match[i], 2 * MAX_KERNEL, "as a kernel's side") for i in (3, 4)]
    for i, side in enumerate(sides, 3):
        if side % 2:
            raise ScheduleError(
                text, at + match.start(i), f"A kernel's side of {side}.", "Expected an even one: phases pool 2x2 patches."
            )
    return Kernel(k, *sides)


def _check_order(text: str, found: list[tuple[str, int, object]]) -> None:
    kinds = [kind for kind, *_ in found]
    tails = [i for i, kind in enumerate(kinds) if kind == "tail"]
    if len(tails) > 1:
        raise ScheduleError(text, found[tails[1]][1], "A second tail.", "Keep one of them.")
    if tails and tails[0] not in (0, len(found) - 1):
        raise ScheduleError(text, found[tails[0]][1], "A tail in the middle.", "Put it at the far left or right.")
    body = [part for part in found if part[0] != "tail"]
    skips = [i for i, (kind, *_) in enumerate(body) if kind == "x"]
    if len(skips) > 1:
        raise ScheduleError(text, body[skips[1]][1], "A second x.", "Skip at most once.")
    for (kind, *_), (after, at, _) in zip(body, body[1:], strict=False):
        if kind == after == "f":
            raise ScheduleError(text, at, "Two group parts side by side.", "Join them without the _.")
    shape = "".join(kind for kind, *_ in body)
    if shape not in ("fg", "fgxf", "fxgf", "fxfg", "gf"):
        at = next((at for kind, at, _ in body if kind == "x"), body[0][1])
        raise ScheduleError(
            text,
            at,
            "No order of generation has this shape.",
            "Expected history_g9, history_g9_x_f1k1, f1k1_x_g9_history or f1k1_x_history_g9.",
        )
    if tails and (tails[0] == 0) != (shape in ("fg", "fgxf", "fxfg")):
        side = "left" if shape in ("fg", "fgxf", "fxfg") else "right"
        raise ScheduleError(text, found[tails[0]][1], "The tail is not beside the history.", f"Put it at the far {side}.")


def _build(text: str, found: list[tuple[str, int, object]], generate: int) -> Schedule:
    parts: list[tuple[Group, ...] | Literal["x", "g"]] = []
    side: Side = "past"
    tail = tail_side = None
    for i, (kind, _, value) in enumerate(found):
        if kind == "g":
            side = "future"
            parts.append("g")
        elif kind == "x":
            parts.append("x")
        elif kind == "tail":
            tail, tail_side = value, "past" if i == 0 else "future"
        else:
            parts.append(tuple(Group(num_lat_frames=n, kernel=k, side=side, part=len(parts)) for n, k in value))
    return Schedule(parts=tuple(parts), generate=generate, tail=tail, tail_side=tail_side)
