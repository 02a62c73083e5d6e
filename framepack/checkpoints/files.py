"""Checkpoint files: one safetensors file, or a folder of shards with an index. Headers first, tensors by memory map."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import CheckpointError
from .detect import strip_prefix
from .fp8 import SCALE, to_rows

INDEX = ".safetensors.index.json"
STATED = "comfy_quant"  # a layer's format, as ComfyUI states it in a tensor beside its weight
OURS = "framepack."  # of metadata, and of tensors that stand for it where a writer takes tensors only
TEXT = 1 << 16  # bytes; a longer text in a tensor is not read
MAX_NAME = 200  # characters of a shard's name
HEAD = 4096  # bytes of each tensor that its identity is made from
SMALL = 1 << 20  # values; tensors up to this size are searched for NaN in full, larger ones at their head
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint's header. `shapes` and `dtypes` are by key, a known prefix taken off; nothing else is read yet.

    `texts` are tensors that hold a text, by key.
    """

    name: str
    paths: tuple[Path, ...]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    metadata: Mapping[str, str]
    texts: Mapping[str, str]

    @classmethod
    def open(cls, path: Path | str) -> Checkpoint:
        """Read the header or headers of a file, an index, or a folder with an index. Raises CheckpointError."""
        path = Path(path)
        paths = _shards(path) if path.is_dir() or path.name.endswith(INDEX) else (path,)
        name = path.parent.name if path.name.endswith(INDEX) else path.name
        shapes: dict[str, tuple[int, ...]] = {}
        dtypes: dict[str, str] = {}
        metadata: dict[str, str] = {}
        texts: dict[str, str] = {}
        for part in paths:
            with _opened(part) as file:
                metadata |= file.metadata() or {}
                for key in file.keys():  # noqa: SIM118 - not a dict
                    piece = file.get_slice(key)
                    shapes[key], dtypes[key] = tuple(piece.get_shape()), piece.get_dtype()
                    if _holds_text(key, shapes[key], dtypes[key]):
                        texts[key] = file.get_tensor(key).numpy().tobytes().decode(errors="replace")
        metadata |= {key: text for key, text in texts.items() if key.startswith(OURS)}
        keys = {own: key for own, key in strip_prefix({key: key for key in shapes}).items() if not own.startswith(OURS)}
        return cls(
            name=name,
            paths=paths,
            shapes={own: shapes[key] for own, key in keys.items()},
            dtypes={own: dtypes[key] for own, key in keys.items()},
            metadata=metadata,
            texts={own: texts[key] for own, key in keys.items() if key in texts},
        )

    @property
    def kinds(self) -> dict[str, str]:
        """The types of the tensors in GGUF's blocks, by key."""
        return {}

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that holds most of the values."""
        sizes: dict[str, int] = {}
        for key, shape in self.shapes.items():
            sizes[self.dtypes[key]] = sizes.get(self.dtypes[key], 0) + torch.Size(shape).numel()
        return DTYPES.get(max(sizes, key=sizes.__getitem__), torch.float32)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by its key, mapped from the files: memory is touched when a tensor is read. CheckpointError."""
        found: dict[str, Tensor] = {}
        for part in self.paths:
            with _opened(part) as file:
                for key in file.keys():  # noqa: SIM118
                    try:
                        found[key] = file.get_tensor(key)
                    except (SafetensorError, LookupError, TypeError, ValueError, AttributeError) as fault:
                        raise CheckpointError(
                            f"{self.name}: {key} cannot be read ({fault}). Get the file again."
                        ) from fault
        return {key: tensor for key, tensor in strip_prefix(found).items() if key in self.shapes}


def _holds_text(key: str, shape: tuple[int, ...], dtype: str) -> bool:
    """Is it a tensor of bytes that stand for a text?"""
    named = key.startswith(OURS) or key.endswith(f".{STATED}")
    return named and dtype == "U8" and len(shape) == 1 and shape[0] <= TEXT


def _shards(path: Path) -> tuple[Path, ...]:
    """The files that an index names, which lie beside it."""
    indexes = [path] if not path.is_dir() else sorted(path.glob(f"*{INDEX}"))
    if not indexes:
        raise CheckpointError(f"{path.name} is a folder without an index (*{INDEX}). Choose a safetensors file.")
    names, folder = shard_names(indexes[0]), indexes[0].parent
    if missing := sorted(name for name in names if not (folder / name).is_file()):
        raise CheckpointError(
            f"{folder.name}: {missing[0]} is missing, one of {len(names)} shards ({len(missing)} are missing). Get it."
        )
    return tuple(folder / name for name in names)


def shard_names(index: Path) -> tuple[str, ...]:
    """The files that an index names, in order. Raises CheckpointError where it is no index."""
    try:
        text = index.read_bytes() if index.is_file() else b""
        names = set(json.loads(text)["weight_map"].values())
    except (ValueError, LookupError, TypeError, AttributeError, OSError, RecursionError) as fault:
        raise CheckpointError(f"{index.name} is no index of shards ({fault!r}). Get it again.") from fault
    if strange := [name for name in names if not _is_file_name(name)]:
        raise CheckpointError(f"{index.name} names {strange[0]!r:.80} as a shard; it must name files beside it.")
    return tuple(sorted(names))


# What the reader of safetensors means, by a part of its message.
FAULTS = {
    "header too large": "it is another kind of file",
    "header too small": "it is empty or cut short",
    "invalid header": "it is another kind of file",
    "incomplete": "it is cut short",
    "not covered": "it is cut short",
    "No such file": "it is gone",
    "Permission": "access is denied",
}


def _is_file_name(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name and len(name) <= MAX_NAME


def _opened(path: Path) -> safe_open:
    """A file's reader. Raises CheckpointError for what is no regular safetensors file."""
    if not path.is_file():  # a pipe would block its reader
        raise CheckpointError(f"{path.name} is no regular file. Choose a safetensors file.")
    try:
        return safe_open(path, "pt")
    except (SafetensorError, OSError) as fault:
        reason = next((said for part, said in FAULTS.items() if part in str(fault)), "it is damaged")
        raise CheckpointError(
            f"{path.name} cannot be read as safetensors: {reason}. Download it again, or choose another file."
        ) from fault


def identity(
    name: str,
    weights: Mapping[str, Tensor],
    each: Callable[[], None] = lambda: None,
    stated: Mapping[str, str] | None = None,
) -> str:
    """A digest of what a file states, and of every key, shape, dtype and the first 4 kB of each tensor.

    `each` is called after every tensor. Raises CheckpointError where a tensor is not finite: small ones are searched in
    full, large ones at their head.
    """
    sha = hashlib.sha256(json.dumps(stated, sort_keys=True).encode() if stated else b"")
    for key in sorted(weights):
        tensor = weights[key]
        sha.update(json.dumps([key, list(tensor.shape), str(tensor.dtype)]).encode())
        head = tensor.flatten()[: max(HEAD // max(tensor.element_size(), 1), 1)].cpu().contiguous()
        sha.update(head.view(torch.uint8).numpy().tobytes() if head.numel() else b"")
        looked = tensor if tensor.numel() <= SMALL else head
        if looked.is_floating_point() and not _finite(looked):
            raise CheckpointError(f"{name}: {key} holds values that are not finite (NaN or infinite). Get it again.")
        each()
    return sha.hexdigest()


def _finite(x: Tensor) -> bool:
    """Is every value finite? A finite sum says so in one pass; only a sum that is not needs a look at each value."""
    total = x.sum(dtype=torch.float32) if x.element_size() > 1 else x.float().sum()
    return bool(torch.isfinite(total)) or bool(torch.isfinite(x.float()).all())


def cast(key: str, tensor: Tensor, dtype: torch.dtype | None, by_rows: bool = False) -> dict[str, Tensor]:
    """A tensor under its key in another dtype; None, and what is not floating, leaves it as it is.

    `by_rows` gives float8 with a scale for each row, which stands beside the weight.
    """
    if dtype is None or not tensor.is_floating_point() or not tensor.numel():
        return {key: tensor}
    if not by_rows:
        return {key: tensor.to(dtype)}
    weight, scales = to_rows(tensor)
    return {key: weight, f"{key.removesuffix('weight')}{SCALE}": scales}
