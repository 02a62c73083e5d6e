"""Read dataclasses from TOML. A wrong key or value raises ConfigError, which names the place and suggests what fits."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ..errors import FramePackError

T = TypeVar("T")
WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text in quotes",
    Path: "a path in quotes",
}


class ConfigError(FramePackError):
    """A configuration file that cannot be read, or a value in it that cannot be used."""


def parse(text: str, where: str) -> dict[str, Any]:
    """The tables of TOML. Raises ConfigError, which names where it is from."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        raise ConfigError(f"Cannot read the configuration {where}: {fault}.") from fault


def read(cls: type[T], data: object, where: str = "") -> T:
    """Make a dataclass of a table's values. Raises ConfigError for unknown, missing and wrong ones."""
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where or 'The configuration'} must be a table of settings; got {data!r:.60}.")
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    for key in data:
        if key not in known:
            near = get_close_matches(key, known, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known settings: {', '.join(known)}."
            raise ConfigError(f"Unknown setting {_path(where, key)!r}. {hint}")
    for name, field in known.items():
        if name not in data and field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"The setting {_path(where, name)!r} is missing.")
    hints = get_type_hints(cls)
    return cls(**{key: _value(hints[key], value, _path(where, key)) for key, value in data.items()})


def _path(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _value(kind: Any, value: Any, where: str) -> Any:
    """A value as its field's type has it."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _value(next(each for each in inner if each is not NoneType), value, where)
    if origin is Literal:
        if value not in inner:
            near = get_close_matches(str(value), map(str, inner), 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Choose one of {', '.join(map(repr, inner))}."
            raise ConfigError(f"{where} cannot be {value!r:.60}. {hint}")
        return value
    if origin is tuple:
        return _tuple(inner, value, where)
    if origin is dict:
        _check(dict, value, where, "a table")
        return {key: _value(inner[1], each, _path(where, key)) for key, each in value.items()}
    if is_dataclass(kind):
        return read(kind, value, where)  # type: ignore[arg-type]
    if kind is Path:
        _check(str, value, where, WORDS[Path])
        return Path(value)
    if kind is float and type(value) is int:
        return float(value)
    _check(kind, value, where, WORDS[kind])
    return value


def _tuple(inner: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    _check(list, value, where, "a list")
    if inner[-1] is not Ellipsis and len(value) != len(inner):
        raise ConfigError(f"{where} must be a list of {len(inner)} values; got {len(value)}: {value!r:.60}.")
    return tuple(_value(inner[0], each, f"{where}[{i}]") for i, each in enumerate(value))


def _check(kind: type, value: Any, where: str, wanted: str) -> None:
    if type(value) is not kind:
        raise ConfigError(f"{where} must be {wanted}; got {value!r:.60}.")
