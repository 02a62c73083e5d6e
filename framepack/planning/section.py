"""A section of a plan: what it makes, what it sees, and where. Indices are latent frames, ranges half open."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from ..errors import PlanError, quoted
from ..schedule.grammar import MAX_KERNEL
from ..schedule.tails import TAILS, tail_of
from ..units import PATCH, Kernel
from . import prompts
from .choice import Choice
from .indices import compact, from_data, names, ranges, to_data
from .json_fields import MAX_POSITION, ints_of, list_of, object_of

Frame = int | str | None  # of the timeline; a slot; or no frame yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Latent frames that go through one kernel, in video time.

    A frame is an index into the timeline, None (no frame yet: a zero latent at its position, unmasked) or the name
    of a slot, a latent that is context only. Consecutive indices are kept as a range, so that a tail of thousands of
    frames takes no memory. `tail` is a tail's name, or None for a group. Raises PlanError.
    """

    kernel: Kernel
    frames: Sequence[Frame]
    positions: Sequence[int]
    tail: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "frames", compact(self.frames))
        object.__setattr__(self, "positions", compact(self.positions))
        if len(self.frames) != len(self.positions) or not self.frames:
            raise PlanError(
                "A context group has one position for each of its frames, and at least one frame; got "
                f"{len(self.frames)} frames and {len(self.positions)} positions."
            )
        if self.tail and not all(type(frame) is int for frame in (self.frames[0], self.frames[-1])):
            raise PlanError("The frames of a tail are latent frames of the video; got a slot or a missing frame.")

    @property
    def known(self) -> Iterator[range]:
        """The frames of the timeline that it looks at, in ranges."""
        return ranges(self.frames)

    @property
    def slots(self) -> set[str]:
        """The slots that it looks at."""
        return names(self.frames)

    def num_tokens(self, height: int, width: int, patch: int = PATCH) -> int:
        """Tokens on a latent grid of height by width (paper section 4.1 for tails)."""
        return tail_of(self.tail).num_tokens(self.kernel, len(self.frames), height, width, patch)

    def num_padded(self, height: int, width: int, patch: int = PATCH) -> int:
        """Latent positions under its tokens' kernels: its frames padded to whole kernels."""
        return self.num_tokens(height, width, patch) * prod(self.kernel.patches) * patch**2

    def to_dict(self) -> dict[str, Any]:
        """As in the plan's JSON."""
        out: dict[str, Any] = {
            "kernel": [self.kernel.t, self.kernel.h, self.kernel.w],
            "frames": to_data(self.frames),
            "positions": to_data(self.positions),
        }
        return out | ({"tail": self.tail} if self.tail else {})

    @classmethod
    def from_dict(cls, data: object) -> Context:
        """From the plan's JSON. Raises PlanError."""
        fields = object_of(data, "A context group", {"kernel", "frames", "positions"}, {"tail"})
        kernel = ints_of(fields["kernel"], "A kernel's side", 1)
        tail = fields.get("tail")
        if len(kernel) != 3 or max(kernel) > 2 * MAX_KERNEL:
            raise PlanError(f"A kernel is [t, h, w] up to {2 * MAX_KERNEL}; got {quoted(kernel)}. Try [1, 2, 2].")
        if tail is not None and not (isinstance(tail, str) and tail in TAILS and TAILS[tail].kept):
            kept = ", ".join(name for name, each in TAILS.items() if each.kept)
            raise PlanError(f"A context group's tail is one of {kept}, or left out; got {quoted(tail)}.")
        return cls(
            kernel=Kernel(*kernel),
            frames=from_data(fields["frames"], "A context frame", 0, slots=True),
            positions=from_data(fields["positions"], "A position", -MAX_POSITION),
            tail=tail,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One sampling: the ranges it makes, their positions, its context, prompt, and the sections it needs.

    With a `choice` some of its contexts are filled when it is sampled; until then they hold the nearest frames.
    """

    makes: tuple[tuple[int, int], ...]
    positions: tuple[int, ...]
    context: tuple[Context, ...] = ()
    prompt: prompts.Prompt | None = None
    needs: Sequence[int] = ()
    choice: Choice | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "needs", compact(self.needs))
        if not self.makes or any(stop <= start for start, stop in self.makes):
            raise PlanError(
                f"A section makes ranges [start, stop) of one latent frame or more; got {quoted(list(self.makes))}."
            )
        if len(self.positions) != self.num_lat_frames:
            raise PlanError(
                f"A section has one position for each latent frame that it makes; got {self.num_lat_frames} frames and "
                f"{len(self.positions)} positions."
            )
        if self.choice and not (self.choice.slots and max(self.choice.slots) < len(self.context)):
            raise PlanError(
                f"A choice fills contexts of its section, 0 to {len(self.context) - 1}; got others or none."
            )

    @property
    def num_lat_frames(self) -> int:
        """How many latent frames it makes."""
        return sum(stop - start for start, stop in self.makes)

    @property
    def made(self) -> Iterator[int]:
        """The latent frames it makes, in the order of its positions."""
        return (frame for start, stop in self.makes for frame in range(start, stop))

    @property
    def runs(self) -> Iterator[range]:
        """The frames of the timeline that it looks at, or chooses from, in ranges."""
        yield from self.seen
        if self.choice:
            yield from self.choice.runs

    @property
    def seen(self) -> Iterator[range]:
        """The frames of the timeline in its contexts, in ranges."""
        return (run for context in self.context for run in context.known)

    @property
    def known(self) -> set[int]:
        """The frames of the timeline that it looks at."""
        return set().union(*self.runs)

    @property
    def slots(self) -> set[str]:
        """The slots of its context."""
        chosen = self.choice.images if self.choice else set()
        return chosen.union(*(context.slots for context in self.context))

    @property
    def highest(self) -> int:
        """Its highest position, context included."""
        positions = (self.positions, *(context.positions for context in self.context))
        return max(run[-1] for each in positions for run in ranges(each))

    def makers(self, maker: Sequence[int | None]) -> set[int | None]:
        """The makers of the frames that it looks at, given by frame; None for frames that do not exist."""
        runs = list(self.runs)
        beyond = {None} if any(run.stop > len(maker) for run in runs) else set()
        return beyond.union(*(maker[run.start : run.stop] for run in runs))

    def num_context_tokens(self, height: int, width: int, patch: int = PATCH) -> int:
        """Tokens of its context, tails included, on a latent grid of height by width."""
        return sum(context.num_tokens(height, width, patch) for context in self.context)

    def to_dict(self) -> dict[str, Any]:
        """As in the plan's JSON."""
        return {
            "makes": [list(r) for r in self.makes],
            "positions": list(self.positions),
            "context": [c.to_dict() for c in self.context],
            "prompt": prompts.to_data(self.prompt),
            "needs": to_data(self.needs),
            **({"choice": self.choice.to_dict()} if self.choice else {}),
        }

    def to_json(self) -> str:
        """Compact JSON: a node's literal input."""
        return json.dumps(self.to_dict(), separators=(",", ":"))

    @classmethod
    def from_dict(cls, data: object) -> Section:
        """From the plan's JSON. Raises PlanError."""
        fields = object_of(data, "A section", {"makes", "positions", "context"}, {"prompt", "needs", "choice"})
        return cls(
            makes=tuple(map(_pair, list_of(fields["makes"], "A section's makes"))),
            positions=ints_of(fields["positions"], "A position", -MAX_POSITION),
            context=tuple(Context.from_dict(c) for c in list_of(fields["context"], "A section's context")),
            prompt=prompts.from_data(fields.get("prompt")),
            needs=from_data(fields.get("needs", []), "A section's need", 0),
            choice=None if fields.get("choice") is None else Choice.from_dict(fields["choice"]),
        )


def _pair(data: object) -> tuple[int, int]:
    pair = ints_of(data, "A range's end", 0)
    if len(pair) != 2:
        raise PlanError(f"A range is a pair such as [28, 37]; got {quoted(data)}.")
    return pair


def num_context_frames(sections: Iterable[Section]) -> int:
    """The frames of all contexts of the sections."""
    return sum(len(context.frames) for section in sections for context in section.context)
