"""What a section is told: a prompt, or two of them blended where one gives way to the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import PlanError

MAX_PROMPT = 20_000  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Blend:
    """Two prompts; `weight` is the share of the second, between 0 and 1."""

    before: str
    after: str
    weight: float

    def __post_init__(self) -> None:
        if not 0 < self.weight < 1:
            raise PlanError(f"a blend of weight {self.weight:g} came; expected a number between 0 and 1")

    def __str__(self) -> str:
        return f"{1 - self.weight:.0%} {self.before} + {self.weight:.0%} {self.after}"


Prompt = str | Blend


def to_data(prompt: Prompt | None) -> Any:
    """As in the plan's JSON: null, text, or an object of a blend."""
    if isinstance(prompt, Blend):
        return {"before": prompt.before, "after": prompt.after, "weight": prompt.weight}
    return prompt


def from_data(data: object) -> Prompt | None:
    """From the plan's JSON. Raises PlanError."""
    if data is None:
        return None
    if isinstance(data, dict) and data.keys() == {"before", "after", "weight"}:
        weight = data["weight"]
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise PlanError(f"a blend's weight {weight!r:.40} came; expected a number between 0 and 1")
        return Blend(before=_text(data["before"]), after=_text(data["after"]), weight=float(weight))
    return _text(data)


def _text(data: object) -> str:
    if not isinstance(data, str) or len(data) > MAX_PROMPT:
        raise PlanError(
            f"the prompt {data!r:.40} came; expected null, text of up to {MAX_PROMPT} characters, or an object of "
            "before, after and weight"
        )
    return data
