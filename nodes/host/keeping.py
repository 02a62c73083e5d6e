"""Where finished sections are stored, and under which key.

FRAMEPACK_STORE names another folder, or is `off`; FRAMEPACK_STORE_GB sets another limit.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import folder_paths

from ...framepack.errors import LostTakeError
from ...framepack.planning.takes import Takes
from ...framepack.store.digest import UnkeyableError, digest
from ...framepack.store.section_store import SectionStore
from .keys import conditioning_parts, model_parts, sampler_parts, vision_parts

log = logging.getLogger(__name__)

FOLDER, LIMIT = "FRAMEPACK_STORE", "FRAMEPACK_STORE_GB"
DEFAULT_GB = 4.0
MAX_GB = 1e9


@cache
def section_store() -> SectionStore | None:
    """The store of this host, or None where it is off."""
    named = os.environ.get(FOLDER, "")
    if named == "off":
        return None
    folder = Path(named) if named else Path(folder_paths.get_user_directory()) / "framepack_sections"
    return SectionStore(folder, int(_limit() * 1e9))


def farm_store() -> tuple[Path, float] | None:
    """The folder of what a farm makes for this host, whose keys are the engine's, and its gigabytes; None where off."""
    store = section_store()
    return None if store is None else (store.folder.with_name(f"{store.folder.name}_farm"), store.limit / 1e9)


def check_locks(takes: Takes) -> None:
    """Raises LostTakeError for a section that is locked to a take that is not in the store; keeps the others."""
    for index, take in takes.items():
        store = section_store()
        if take.lock and store is None:
            raise LostTakeError(index, take.lock, "cannot be read: the section store is off")
        if take.lock and store is not None and not store.holds(take.lock):
            raise LostTakeError(index, take.lock, "is not in the section store: it was cleared or trimmed")


def _limit() -> float:
    """Gigabytes that the store may take."""
    asked = os.environ.get(LIMIT, str(DEFAULT_GB))
    with suppress(ValueError):
        if 0 <= float(asked) < MAX_GB:  # NaN is not
            return float(asked)
    log.warning("%s must be a number of gigabytes, 0 or more; got %r. Using %g.", LIMIT, asked, DEFAULT_GB)
    return DEFAULT_GB


def section_key(model: Any, sampler: Any, vision: Any, values: Mapping[str, Any]) -> str | None:
    """The key of a section, or None where it depends on something that has no contents to digest."""
    try:
        parts = {"model": model_parts(model), "sampler": sampler_parts(sampler), "vision": vision_parts(vision)}
        said = {name: conditioning_parts(values.get(name)) for name in ("positive", "negative")}
        return digest(parts | dict(values) | said)
    except UnkeyableError as fault:
        _report(str(fault))
        return None


@cache
def _report(fault: str) -> None:
    log.warning("Finished sections are not stored: %s.", fault)
