"""Reading a plan's JSON: each part is what it has to be, or a PlanError says what came and what was expected."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import PlanError

MAX_POSITION = 1_000_000
MAX_NAME = 64  # characters of a slot's name

T = TypeVar("T")


def load_json(text: str, what: str) -> object:
    """What a text of JSON holds. Raises PlanError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise PlanError(f"the {what} is no JSON ({fault}); expected what EndpointPlanner gives") from fault


def object_of(data: object, what: str, required: set[str], optional: set[str]) -> dict[str, Any]:
    """The object's fields, none missing and none strange. Raises PlanError."""
    if not isinstance(data, dict):
        raise PlanError(
            f"{what} is a JSON {type(data).__name__}; expected an object with {', '.join(sorted(required))}"
        )
    if missing := required - data.keys():
        raise PlanError(f"{what} has no {min(missing)}; expected what EndpointPlanner gives")
    if strange := data.keys() - required - optional:
        raise PlanError(f"{what} has the unknown field {min(strange)!r:.40}; expected what EndpointPlanner gives")
    return data


def list_of(data: object, what: str) -> list[Any]:
    """The list. Raises PlanError."""
    if not isinstance(data, list):
        raise PlanError(f"{what} came as a JSON {type(data).__name__}; expected a list")
    return data


def int_of(value: object, what: str, least: int) -> int:
    """A whole number of at least `least`. Raises PlanError."""
    if type(value) is not int or not least <= value <= MAX_POSITION:
        raise PlanError(f"{what} {value!r:.40} came; expected a whole number from {least} to {MAX_POSITION}")
    return value


def ints_of(data: object, what: str, least: int) -> tuple[int, ...]:
    """Whole numbers of at least `least` each. Raises PlanError."""
    return _each(data, what, lambda value: int_of(value, what, least))


def frames_of(data: object) -> tuple[int | str | None, ...]:
    """Frames of a context: an index, a slot's name, or None. Raises PlanError."""

    def frame(value: object) -> int | str | None:
        if value is None:
            return None
        return slot_of(value) if isinstance(value, str) else int_of(value, "a context frame", 0)

    return _each(data, "frames", frame)


def _each(data: object, what: str, read: Callable[[object], T]) -> tuple[T, ...]:
    return tuple(map(read, list_of(data, what)))


def slot_of(value: object) -> str:
    """A slot's name. Raises PlanError."""
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME or not value.isprintable():
        raise PlanError(f"the slot name {value!r:.40} came; expected 1 to {MAX_NAME} printable characters")
    return value
