"""Schedule strings of the paper (section 4.1): parse, print, count.

A string such as ``f1k1_x_g9_f1k1f2k2f16k4_td`` lists, left earlier in video time, the frames that are seen and the
kernel that each goes through (f16k4), what is generated (g9), what is skipped (x), and what becomes of the tail
(td delete, ta append, tc compress). The suffix +d (or +D) asks for discrete history (paper v3, equation 6).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from ..errors import FramePackError, ScheduleError, quoted
from ..units import BASE, PATCH, Kernel
from .tails import TAILS, Deleted

Side = Literal["past", "future"]
ShapeOrder = Literal["vanilla", "endpoint", "inverted"]

MAX_LENGTH = 500  # characters
MAX_FRAMES = 4096  # latent frames of all groups together: nine minutes
MAX_GENERATE = 256  # latent frames
MAX_KERNEL = 64  # a kernel's time; height and width up to twice that
EXAMPLE = "f1k1_x_g9_f1k1f2k2f16k4_td"
DISCRETE = "+d"

_TAILS = ", ".join(f"{tail.name} ({tail.brief})" for tail in TAILS.values())
_GROUP = re.compile(r"f([0-9]+)k([0-9]+)(?:h([0-9]+)w([0-9]+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Neighbouring latent frames that go through one kernel; `side` is where they lie from what is generated."""

    num_lat_frames: int
    kernel: Kernel
    side: Side

    def __str__(self) -> str:
        return f"f{self.num_lat_frames}{self.kernel}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A parsed schedule; str() is its canonical string.

    `past` and `future` are the groups right before and right after what is generated, `far_past` and `far_future`
    those beyond a skip. Each runs in video time. `discrete`: history goes through a codebook. Raises
    FramePackError for a shape that no order of generation has.
    """

    generate: int
    far_past: tuple[Group, ...] = ()
    past: tuple[Group, ...] = ()
    future: tuple[Group, ...] = ()
    far_future: tuple[Group, ...] = ()
    tail: str = Deleted.name
    tail_side: Side | None = None
    discrete: bool = False

    def __post_init__(self) -> None:
        if not self.groups or (self.future and (self.past or self.far_future)):
            raise FramePackError(f"No order of generation has the shape {self}. Try {EXAMPLE}.")
        if not TAILS[self.tail].kept:  # it has no frames, and is written where tails usually are
            object.__setattr__(self, "tail_side", "future" if self.future else "past")
        elif self.tail_side is None:
            object.__setattr__(self, "tail_side", self.tail_sides[0])
        elif self.tail_side not in self.tail_sides:
            side = "left" if self.tail_sides[0] == "past" else "right"
            raise FramePackError(f"This side of {self} has no frames for a tail. Put {self.tail} at the far {side}.")
        if len(str(self)) > MAX_LENGTH:
            raise FramePackError(
                f"A schedule has at most {MAX_LENGTH} characters, its tail included; got {len(str(self))}. Use fewer "
                "groups."
            )

    @property
    def groups(self) -> tuple[Group, ...]:
        """All groups in order of video time."""
        return self.far_past + self.past + self.future + self.far_future

    @property
    def order(self) -> ShapeOrder:
        """The order of generation that the shape implies (paper section 3.3)."""
        if self.future:
            return "inverted"
        return "endpoint" if self.far_future else "vanilla"

    @property
    def tail_sides(self) -> tuple[Side, ...]:
        """The sides on which a tail can lie, the usual one first: beyond groups, and in an inverted order ahead."""
        if self.future:
            return ("future",)
        return (*(("past",) if self.past or self.far_past else ()), *(("future",) if self.far_future else ()))

    @property
    def tail_kernel(self) -> Kernel:
        """The kernel nearest to the tail: that of the history's outermost group on the tail's side."""
        if self.tail_side == "past":
            return (self.past or self.far_past or self.groups)[0].kernel
        return (self.far_future or self.future or self.groups)[-1].kernel

    @property
    def rate(self) -> Fraction:
        """Context length in frames of full length: L / L_f - S of equation 2, padding and tail left out."""
        return sum((Fraction(g.num_lat_frames * BASE.size, g.kernel.size) for g in self.groups), Fraction(0))

    def __str__(self) -> str:
        near_past, near_future = ("".join(map(str, part)) for part in (self.past, self.future))
        names = [
            *(["".join(map(str, self.far_past)), "x"] if self.far_past else []),
            *([near_past] if near_past else []),
            f"g{self.generate}",
            *([near_future] if near_future else []),
            *(["x", "".join(map(str, self.far_future))] if self.far_future else []),
        ]
        names.insert(0 if self.tail_side == "past" else len(names), self.tail)
        return "_".join(names) + (DISCRETE if self.discrete else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCount:
    """Tokens of one section on a latent grid. `tail` is per tail frame for ta, whole for tc, and not in `total`."""

    groups: tuple[int, ...]
    tail: int
    generated: int

    @property
    def context(self) -> int:
        """Tokens of all groups."""
        return sum(self.groups)

    @property
    def total(self) -> int:
        """Tokens of the groups and of what is generated."""
        return self.context + self.generated


def count_tokens(schedule: Schedule, height: int, width: int, patch: int = PATCH) -> TokenCount:
    """Tokens of a schedule on a latent grid of height by width (paper equation 2, padding counted)."""
    return TokenCount(
        groups=tuple(g.kernel.num_tokens(g.num_lat_frames, height, width, patch) for g in schedule.groups),
        tail=TAILS[schedule.tail].num_tokens(schedule.tail_kernel, 1, height, width, patch),
        generated=BASE.num_tokens(schedule.generate, height, width, patch),
    )


def parse(text: str) -> Schedule:
    """Parse a schedule string; without a tail it means td. Raises ScheduleError with a caret under the fault."""
    if not isinstance(text, str):
        raise ScheduleError("", 0, f"A schedule is text; got {quoted(text)}.", f"Try {EXAMPLE}.")
    return _Parser(text.strip()).schedule()


@dataclass(slots=True)
class _Part:
    kind: str  # one letter: t tail, x, g, f groups
    at: int
    value: Any = None


class _Parser:
    """One pass over the parts, then checks of their order; every fault states its place in the text."""

    def __init__(self, text: str):
        self.text = text

    def fail(self, at: int, fault: str, remedy: str) -> ScheduleError:
        return ScheduleError(self.text, at, fault, remedy)

    def schedule(self) -> Schedule:
        self.check_characters()
        discrete = self.take_suffix()
        parts = self.parts()
        tail = self.take_tail(parts)
        self.check_once(parts)
        places = self.places(parts)
        try:
            return Schedule(
                generate=next(part.value for part in parts if part.kind == "g"),
                tail=tail.value if tail else Deleted.name,
                tail_side=tail.kind if tail else None,  # type: ignore[arg-type]
                discrete=discrete,
                **{name: _with_side(value, "past" if "past" in name else "future") for name, value in places.items()},
            )
        except FramePackError as fault:
            raise self.fail(tail.at if tail else len(self.text), str(fault), f"Try {EXAMPLE}.") from fault

    def check_characters(self) -> None:
        text = self.text
        if not text:
            raise self.fail(0, "The schedule is empty.", f"Try {EXAMPLE}.")
        if len(text) > MAX_LENGTH:
            fault = f"A schedule has at most {MAX_LENGTH} characters; got {len(text)}."
            raise self.fail(MAX_LENGTH, fault, f"Use fewer groups, as in {EXAMPLE}.")
        strange = next((i for i, c in enumerate(text) if not (c.isascii() and (c.isalnum() or c in "_+"))), None)
        if strange is not None:
            c = text[strange]
            raise self.fail(
                strange,
                f"The character {c!r} (U+{ord(c):04X}) has no meaning in a schedule.",
                f"Use a to z, 0 to 9 and _, as in {EXAMPLE}.",
            )

    def take_suffix(self) -> bool:
        """Does the text end in +d or +D?"""
        body, plus, name = self.text.partition("+")
        if plus and name not in ("d", "D"):
            raise self.fail(
                len(body),
                f"Unknown suffix {_shown(plus + name)}.",
                f"Write +d for discrete history, as in {EXAMPLE}+d.",
            )
        return bool(plus)

    def parts(self) -> list[_Part]:
        found, at = [], 0
        for name in self.text.partition("+")[0].split("_"):
            found.append(self.part(name, at))
            at += len(name) + 1
        return found

    def part(self, name: str, at: int) -> _Part:
        if name in TAILS:
            return _Part("t", at, name)
        if name == "x":
            return _Part("x", at)
        if re.fullmatch(r"g[0-9]+", name):
            return _Part("g", at, self.number(name[1:], at + 1, MAX_GENERATE, "A section's length in latent frames"))
        if re.match(r"f[0-9]", name):
            return _Part("f", at, self.groups(name, at))
        raise self.fail(at, f"Unknown part {_shown(name)}." if name else "A part is empty.", _remedy(name))

    def number(self, digits: str, at: int, most: int, what: str) -> int:
        value = int(digits[:12].lstrip("0") or "0") if len(digits.lstrip("0")) <= 12 else most + 1
        if not 1 <= value <= most:
            raise self.fail(at, f"{what} is 1 to {most}; got {_bare(digits)}.", f"Try {min(most, max(value, 1))}.")
        return value

    def groups(self, name: str, at: int) -> list[tuple[int, Kernel]]:
        found, place = [], 0
        while place < len(name):
            match = _GROUP.match(name, place)
            if not match:
                raise self.fail(
                    at + place,
                    f"No group begins with {_shown(name[place:])}.",
                    "Write a number of frames and a kernel, such as f16k4 (short for f16k4h8w8) or f1k1h4w4.",
                )
            frames = self.number(match[1], at + match.start(1), MAX_FRAMES, "A group's length in latent frames")
            found.append((frames, self.kernel(match, at)))
            place = match.end()
        return found

    def kernel(self, match: re.Match[str], at: int) -> Kernel:
        k = self.number(match[2], at + match.start(2), MAX_KERNEL, "A kernel's time")
        if match[3] is None:
            return Kernel.short(k)
        sides = []
        for i, what in ((3, "height"), (4, "width")):
            side = self.number(match[i], at + match.start(i), 2 * MAX_KERNEL, f"A kernel's {what}")
            if side % 2:
                raise self.fail(
                    at + match.start(i),
                    f"A kernel's {what} must be even, because RoPE phases are pooled from 2x2 patches; got {side}.",
                    f"Try {side + 1}.",
                )
            sides.append(side)
        return Kernel(k, *sides)

    def take_tail(self, parts: list[_Part]) -> _Part | None:
        tails = [i for i, part in enumerate(parts) if part.kind == "t"]
        if not tails:
            return None
        if len(tails) > 1:
            raise self.fail(parts[tails[1]].at, "The schedule has a second tail.", f"Keep one of {_TAILS}.")
        if tails[0] not in (0, len(parts) - 1):
            fault = "The tail stands in the middle."
            raise self.fail(parts[tails[0]].at, fault, "Put it at the far left or the far right.")
        tail = parts.pop(tails[0])
        tail.kind = "past" if tails[0] == 0 else "future"
        return tail

    def check_once(self, parts: list[_Part]) -> None:
        generates = [part for part in parts if part.kind == "g"]
        if not generates:
            raise self.fail(len(self.text), "The schedule generates nothing.", "Add one part such as g9.")
        if len(generates) > 1:
            raise self.fail(generates[1].at, "The schedule has a second g part.", "Keep exactly one g part.")
        for before, after in zip(parts, parts[1:], strict=False):
            if before.kind == after.kind:
                remedy = {"f": "Write them as one part, without the _.", "x": "One x skips any number of frames."}
                raise self.fail(after.at, "Two parts of one kind stand side by side.", remedy[after.kind])
        total = sum(n for part in parts if part.kind == "f" for n, _ in part.value)
        if total > MAX_FRAMES:
            fault = f"The groups have at most {MAX_FRAMES} latent frames together; got {total}."
            raise self.fail(0, fault, "Use fewer or shorter groups.")

    def places(self, parts: list[_Part]) -> dict[str, list[tuple[int, Kernel]]]:
        """The groups by the field of Schedule that holds them."""
        shape = "".join(part.kind for part in parts)
        match = re.fullmatch(r"(?:(f)x)?(f)?g(?:x(f))?|(?:(f)x)?g(f)", shape)
        if not match or "f" not in shape:
            at = next((p.at for p in parts if p.kind == "x"), parts[0].at)
            raise self.fail(
                at,
                "No order of generation has this shape.",
                "Use history_g9, history_g9_x_f1k1, f1k1_x_g9_history or f1k1_x_history_g9.",
            )
        names = {1: "far_past", 2: "past", 3: "far_future", 4: "far_past", 5: "future"}
        return {names[i]: parts[match.start(i)].value for i in names if match[i]}


def _with_side(groups: list[tuple[int, Kernel]], side: Side) -> tuple[Group, ...]:
    return tuple(Group(num_lat_frames=n, kernel=kernel, side=side) for n, kernel in groups)


def _remedy(name: str) -> str:
    if name != name.lower():
        return f"Parts are lower case: {_shown(name.lower())}."
    if name.startswith("t"):
        return f"A tail is one of {_TAILS}, at the far left or right."
    if name.startswith("k"):
        return "A group begins with its number of latent frames: f16k4."
    return f"Write groups such as f16k4f2k2f1k1, then g9, x, or a tail ({_TAILS}), joined by _, as in {EXAMPLE}."


def _shown(name: str) -> str:
    return repr(name if len(name) <= 24 else name[:24] + "...")


def _bare(digits: str) -> str:
    return digits if len(digits) <= 12 else f"a number of {len(digits)} digits"
