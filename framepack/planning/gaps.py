"""Gap rules: how many positions a skip (x) spans.

Positions are the time indices of RoPE. RoPE between picture tokens is shift-invariant, but text tokens are not
rotated, so absolute positions count too: the rules of the orders keep them within those that models were trained on.
`released` spans at most 3 sections in the first pass, then 2; `pinned` none; `true` as many positions as frames;
`capped:N` at most N sections. With the inverted order `released` gives gaps of 3, 2, ..., 2, 1, 0 sections.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import PlanError, quoted

GAP_RULES = ("released", "pinned", "true", "capped:N")
GAP_NOTES = {
    "auto": "the schedule's own rule",
    "released": "FramePack I2V: at most 3 sections, then 2",
    "pinned": "FramePack F1: no gap",
    "true": "as many positions as frames are skipped",
    "capped:3": "at most 3 sections; write any number",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A gap rule; `cap` is in sections, for `capped`. With a `limit`, gaps shrink to keep positions below it."""

    rule: str
    cap: int = 0
    limit: int | None = None

    @classmethod
    def parse(cls, text: str) -> Gap:
        """Read ``released``, ``pinned``, ``true`` or ``capped:N``. Raises PlanError."""
        if isinstance(text, str):
            if match := re.fullmatch(r"capped:([0-9]{1,4})", text, re.ASCII):
                return cls(rule="capped", cap=int(match[1]))
            if text in GAP_RULES[:3]:
                return cls(rule=text)
        raise PlanError(f"The gap is one of {', '.join(GAP_RULES)}; got {quoted(text)}. Try capped:3.")

    def bridge(self, skips: Sequence[int], num_others: int, generate: int, first: bool) -> list[int]:
        """The gaps in positions over skipped frames.

        `num_others` positions are taken by all else; `first` is true of the span's first section.
        """
        most = {"pinned": 0, "released": (3 if first else 2) * generate, "capped": self.cap * generate}.get(self.rule)
        gaps = [max(skip if most is None else min(skip, most), 0) for skip in skips]
        room = -1 if self.limit is None else self.limit - num_others
        if 0 <= room < sum(gaps):
            return [gap * room // sum(gaps) for gap in gaps]
        return gaps
