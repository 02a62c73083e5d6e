"""How a finished section compares with the video's start, in small pictures of its latents."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL.Image import Image

from ...framepack.errors import MissingPackageError
from ...framepack.metrics.sections import Look

log = logging.getLogger(__name__)


def look_of(pictures: Sequence[Image], start: Sequence[Image]) -> dict[str, Any] | None:
    """A section's look for the drift monitor; None without the package that measures. `start` is the video's."""
    try:
        own = Look.of(map(np.asarray, pictures))
        first = Look.of(map(np.asarray, start)) if start else None
    except MissingPackageError as fault:
        _report(str(fault))
        return None
    return {"own": _data(own), "start": _data(first) if first else None}


def _data(look: Look) -> dict[str, Any]:
    return {"colour": list(look.colour), **look.values}


@cache
def _report(fault: str) -> None:
    log.info("Sections are not compared with the start: %s", fault)
