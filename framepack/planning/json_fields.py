"""Reads a plan's JSON: each part has its type and bounds, or a PlanError names the part and the value."""

from __future__ import annotations

import json
from typing import Any

from ..errors import PlanError, quoted

MAX_POSITION = 1_000_000
MAX_NAME = 64  # characters of a slot's name
MAX_JSON = 100_000_000  # characters
SOURCE = "Use the output of EndpointPlanner or FramePackEndpoint."


def load_json(text: object, what: str) -> object:
    """The value that a text of JSON states. Raises PlanError."""
    if not isinstance(text, str) or len(text) > MAX_JSON:
        raise PlanError(f"The {what} is JSON text of at most {MAX_JSON} characters; got {quoted(text)}. {SOURCE}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise PlanError(f"The {what} is not valid JSON ({fault}); got {quoted(text)}. {SOURCE}") from fault


def object_of(data: object, what: str, required: set[str], optional: set[str]) -> dict[str, Any]:
    """The object's fields: all required ones, and no unknown ones. Raises PlanError."""
    if not isinstance(data, dict):
        raise PlanError(f"{what} is an object with {', '.join(sorted(required))}; got {quoted(data)}. {SOURCE}")
    if missing := required - data.keys():
        raise PlanError(f"{what} has no {min(missing)}. {SOURCE}")
    if strange := data.keys() - required - optional:
        raise PlanError(f"{what} has the unknown field {quoted(min(strange))}. {SOURCE}")
    return data


def list_of(data: object, what: str) -> list[Any]:
    """The list. Raises PlanError."""
    if not isinstance(data, list):
        raise PlanError(f"{what} is a list; got {quoted(data)}. {SOURCE}")
    return data


def int_of(value: object, what: str, least: int) -> int:
    """A whole number of at least `least`. Raises PlanError."""
    if type(value) is not int or not least <= value <= MAX_POSITION:
        raise PlanError(f"{what} is a whole number from {least} to {MAX_POSITION}; got {quoted(value)}. {SOURCE}")
    return value


def bool_of(value: object, what: str) -> bool:
    """A truth value. Raises PlanError."""
    if not isinstance(value, bool):
        raise PlanError(f"{what} is true or false; got {quoted(value)}.")
    return value


def ints_of(data: object, what: str, least: int) -> tuple[int, ...]:
    """Whole numbers of at least `least` each. Raises PlanError."""
    return tuple(int_of(value, what, least) for value in list_of(data, what))


def slot_of(value: object) -> str:
    """A slot's name. Raises PlanError."""
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME or not value.isprintable():
        raise PlanError(f"A slot's name has 1 to {MAX_NAME} printable characters; got {quoted(value)}. Try key.")
    return value
