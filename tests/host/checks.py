"""For scripts that run inside the host: their checks, and the pack's modules."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any


def module_of(name: str) -> ModuleType:
    """A module of the pack, which the host has loaded under a name of its own."""
    (module,) = [module for known, module in sys.modules.items() if known.endswith(f".{name}")]
    return module


def report(names: Mapping[str, Any]) -> None:
    """Run every check_..., and print, JSON, None or what went wrong for each."""
    found = {name: outcome(check) for name, check in names.items() if name.startswith("check_")}
    sys.stdout.write(json.dumps({"result": found}))


def outcome(check: Callable[[], None]) -> str | None:
    """What went wrong in a check."""
    try:
        check()
    except Exception:  # noqa: BLE001 - whatever it is, the test shows it
        return traceback.format_exc()
    return None
