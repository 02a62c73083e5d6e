"""The machines of a cluster: they are alike, or nothing is computed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .cluster import Cluster
from .facts import Facts, check, pack_version, python_version

LOOK = 0.5  # seconds between two looks for a machine


def checked(cluster: Cluster, ray: Any, model: str, waits: Callable[[], None], probe: Path | None = None) -> Facts:
    """Facts that all machines share, and the driver's code too. `probe` is a file in a store that all must see.

    Waits for the first machine of a cluster that grows by itself; `waits` is called meanwhile. Raises FarmError before
    anything is computed, and what `waits` raises.
    """
    wish = None
    while not (found := cluster.facts(ray, model, str(probe) if probe else None)):
        wish = wish or cluster.wish(ray)
        waits()
        time.sleep(LOOK)
    check(found, model, probe.parent if probe else None, probe.stem if probe else None)
    code = {"pack": pack_version(), "python": python_version(), "torch": version("torch")}
    check([replace(found[0], machine="the driver", **code), *found], model)
    return found[0]
