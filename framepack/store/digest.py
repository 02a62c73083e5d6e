"""A digest of everything that determines a result. What cannot be told apart by its contents is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import FramePackError


class UnkeyableError(FramePackError):
    """Something that a result depends on has no contents to digest."""


def digest(parts: Mapping[str, Any]) -> str:
    """SHA-256 over named parts: tensors, numbers, text, and mappings, sequences and dataclasses of these.

    Raises UnkeyableError, which names the part, for anything else.
    """
    sha = hashlib.sha256()
    _feed(sha, parts, "")
    return sha.hexdigest()


def _feed(sha: Any, value: Any, where: str) -> None:
    if value is None or isinstance(value, bool | int | float | str):
        sha.update(f"{type(value).__name__}:{json.dumps(value)};".encode())
    elif isinstance(value, Tensor):
        _feed_tensor(sha, value)
    elif isinstance(value, torch.dtype | torch.device):
        sha.update(f"{value};".encode())
    elif isinstance(value, Mapping):
        sha.update(f"map:{len(value)};".encode())
        for key in sorted(value, key=str):
            _feed(sha, str(key), where)
            _feed(sha, value[key], f"{where}.{key}" if where else str(key))
    elif is_dataclass(value) and not isinstance(value, type):
        _feed(sha, {field.name: getattr(value, field.name) for field in fields(value)}, where)
    elif isinstance(value, list | tuple | set | frozenset):
        _feed_all(sha, sorted(value) if isinstance(value, set | frozenset) else value, where)
    else:
        raise UnkeyableError(f"{where or 'a part'} is a {type(value).__name__}, whose contents are unknown")


def _feed_all(sha: Any, values: Iterable[Any], where: str) -> None:
    held = list(values)
    sha.update(f"list:{len(held)};".encode())
    for i, value in enumerate(held):
        _feed(sha, value, f"{where}[{i}]")


def _feed_tensor(sha: Any, tensor: Tensor) -> None:
    sha.update(f"tensor:{tensor.dtype}:{list(tensor.shape)};".encode())
    if tensor.numel():
        sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
