"""Runs first in a host process that tools/host.py started; the test process imports it for `mend_torchvision`.

It ends the host when whoever started it is gone, and lets a CUDA build of torchvision load beside a CPU build of
torch. It touches nothing else, and imports torch only where the builds differ.
"""

from __future__ import annotations

import os
import re
import threading
from importlib.util import find_spec
from pathlib import Path

_keep: list[object] = []  # the operators live as long as their library does


def mend_torchvision() -> None:
    """Define the two operators that a CUDA build of torchvision names at import and a CPU build of torch lacks."""
    if _build("torch") != "cpu" or not _build("torchvision").startswith("cu") or _keep:
        return
    import torch

    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _keep.append(library)


def _build(package: str) -> str:
    """The build that an installed package's version file names: cpu, cu130 or nothing."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return ""
    text = (Path(spec.origin).parent / "version.py").read_text("utf-8")
    named = re.search(r"__version__ = '[^'+]*\+(\w+)'", text)
    return named.group(1) if named else ""


def _end_with_parent() -> None:
    """Leave at once when standard input closes: it is a pipe that only the starter holds open."""
    while os.read(0, 1):
        pass
    os._exit(1)


if os.environ.get("FRAMEPACK_HOST") == str(os.getppid()):
    threading.Thread(target=_end_with_parent, daemon=True).start()
    mend_torchvision()
