"""Write safetensors files tensor by tensor, so that no more than one tensor is in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError
from .files import DTYPES

NAMES = {dtype: name for name, dtype in DTYPES.items()}
Layout = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]  # dtype and shape of each tensor, in the file's order


def check_new(path: Path) -> None:
    """Raises CheckpointError where a file exists already, or its folder does not."""
    if path.exists():
        raise CheckpointError(f"{path} exists already. Name a new file.")
    if not path.parent.is_dir():
        raise CheckpointError(f"{path.parent} is no folder. Make it first, or name another.")


def write(
    path: Path,
    layout: Layout,
    tensors: Iterable[tuple[str, Tensor]],
    metadata: Mapping[str, str],
) -> None:
    """Write `tensors` in the order of `layout`, which states each one's dtype and shape, into a new file.

    The file appears complete or not at all. Raises CheckpointError where one exists already, or its folder does not.
    """
    check_new(path)
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    at = 0
    for key, (dtype, shape) in layout.items():
        size = torch.Size(shape).numel() * dtype.itemsize
        header[key] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("xb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for (key, (dtype, shape)), (name, tensor) in zip(layout.items(), tensors, strict=True):
                assert (key, dtype, tuple(shape)) == (name, tensor.dtype, tuple(tensor.shape)), key
                file.write(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
