"""The prompt of a section: text, or a blend of two texts around a border of the prompt timeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import PlanError, quoted

MAX_PROMPT = 20_000  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Blend:
    """Two prompts; `weight` is the share of the second, between 0 and 1."""

    before: str
    after: str
    weight: float

    def __post_init__(self) -> None:
        if not 0 < self.weight < 1:
            raise PlanError(f"A blend's weight is a number between 0 and 1; got {self.weight:g}. Try 0.5.")

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
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < 1:
            raise PlanError(f"A blend's weight is a number between 0 and 1; got {quoted(weight)}. Try 0.5.")
        return Blend(before=checked(data["before"]), after=checked(data["after"]), weight=float(weight))
    return checked(data)


def checked(text: object) -> str:
    """A prompt's text within its bound. Raises PlanError."""
    if not isinstance(text, str):
        raise PlanError(f"A prompt is text, or an object of before, after and weight; got {quoted(text)}.")
    if len(text) > MAX_PROMPT:
        raise PlanError(f"A prompt has at most {MAX_PROMPT} characters; got {len(text)}. Shorten {quoted(text)}.")
    if surrogate := next((c for c in text if "\ud800" <= c <= "\udfff"), None):
        raise PlanError(f"A prompt is text that UTF-8 can hold; got {quoted(text)}. Remove {quoted(surrogate)}.")
    return text
