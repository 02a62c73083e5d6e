"""Where finished sections are kept, and under which key.

FRAMEPACK_STORE names another folder, or `off`; FRAMEPACK_STORE_GB another limit.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import folder_paths

from ...framepack.store.digest import UnkeyableError, digest
from ...framepack.store.section_store import SectionStore
from .keys import conditioning_parts, model_parts, sampler_parts, vision_parts

log = logging.getLogger(__name__)

FOLDER, LIMIT = "FRAMEPACK_STORE", "FRAMEPACK_STORE_GB"
DEFAULT_GB = 4.0


@cache
def section_store() -> SectionStore | None:
    """The store of this host, or None where it is off."""
    named = os.environ.get(FOLDER, "")
    if named == "off":
        return None
    folder = Path(named) if named else Path(folder_paths.get_user_directory()) / "framepack_sections"
    try:
        limit = float(os.environ.get(LIMIT, DEFAULT_GB))
    except ValueError:
        log.warning("%s is %r; expected a number. %g GB are used.", LIMIT, os.environ[LIMIT], DEFAULT_GB)
        limit = DEFAULT_GB
    return SectionStore(folder, int(limit * 1e9))


def section_key(model: Any, sampler: Any, vision: Any, values: Mapping[str, Any]) -> str | None:
    """The key of a section, or None where something that it depends on cannot be told by its contents."""
    try:
        parts = {"model": model_parts(model), "sampler": sampler_parts(sampler), "vision": vision_parts(vision)}
        said = {name: conditioning_parts(values.get(name)) for name in ("positive", "negative")}
        return digest(parts | dict(values) | said)
    except UnkeyableError as fault:
        _say(str(fault))
        return None


@cache
def _say(fault: str) -> None:
    log.warning("finished sections are not kept on disk: %s", fault)
