"""Settings by name, each a TOML file here: a configuration that states ``preset = "NAME"`` starts from them.

What the configuration states itself comes first, setting by setting; its stages replace the preset's as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..config import Config
from ..settings import ConfigError, parse, read

FOLDER, KEY = Path(__file__).parent, "preset"


def names() -> list[str]:
    """Every preset."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def text_of(name: str) -> str:
    """A preset's file. Raises ConfigError for a name that is none."""
    if name not in names():
        near = get_close_matches(str(name), names(), 1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Choose one of {', '.join(names())}."
        raise ConfigError(f"There is no preset {name!r:.60}. {hint}")
    return (FOLDER / f"{name}.toml").read_text(encoding="utf-8")


def load(path: Path) -> Config:
    """Read a configuration file. Raises ConfigError, FramePackError."""
    try:
        own = parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigError(f"Cannot read the configuration {path}: {fault}.") from fault
    name = own.pop(KEY, None)
    return read(Config, own if name is None else merged(parse(text_of(name), f"preset {name}"), own))


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A table with another's values in place of its own, table by table."""
    inner = {
        key: merged(base[key], value)
        for key, value in over.items()
        if isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
    }
    return {**base, **over, **inner}
