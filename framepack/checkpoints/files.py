"""Checkpoint files: one safetensors file, or a folder of shards with an index. Headers first, tensors by memory map."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import CheckpointError
from .detect import strip_prefix
from .fp8 import SCALE, to_rows

INDEX = ".safetensors.index.json"
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
    """A checkpoint's header. `shapes` and `dtypes` are by key, a known prefix taken off; nothing else is read yet."""

    name: str
    paths: tuple[Path, ...]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    metadata: Mapping[str, str]

    @classmethod
    def open(cls, path: Path | str) -> Checkpoint:
        """Read the header or headers of a file, an index, or a folder with an index. Raises CheckpointError."""
        path = Path(path)
        paths = _shards(path) if path.is_dir() or path.name.endswith(INDEX) else (path,)
        name = path.parent.name if path.name.endswith(INDEX) else path.name
        shapes: dict[str, tuple[int, ...]] = {}
        dtypes: dict[str, str] = {}
        metadata: dict[str, str] = {}
        for part in paths:
            with _opened(part) as file:
                metadata |= file.metadata() or {}
                for key in file.keys():  # noqa: SIM118 - not a dict
                    piece = file.get_slice(key)
                    shapes[key], dtypes[key] = tuple(piece.get_shape()), piece.get_dtype()
        return cls(name=name, paths=paths, shapes=strip_prefix(shapes), dtypes=strip_prefix(dtypes), metadata=metadata)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that holds most of the values."""
        sizes: dict[str, int] = {}
        for key, shape in self.shapes.items():
            sizes[self.dtypes[key]] = sizes.get(self.dtypes[key], 0) + torch.Size(shape).numel()
        return DTYPES.get(max(sizes, key=sizes.__getitem__), torch.float32)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by its key, mapped from the files: memory is touched when a tensor is read."""
        found: dict[str, Tensor] = {}
        for part in self.paths:
            with _opened(part) as file:
                found |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return strip_prefix(found)

    def check(self, expected: Mapping[str, tuple[int, ...]], optional: Callable[[str], bool]) -> None:
        """Every expected tensor is there in its shape; those that are `optional` may be missing. CheckpointError."""
        if missing := sorted(key for key in expected.keys() - self.shapes.keys() if not optional(key)):
            raise CheckpointError(
                f"{self.name}: {len(missing)} tensors are missing, such as {missing[0]}; fetch the file again."
            )
        for key, shape in expected.items():
            if key in self.shapes and tuple(self.shapes[key]) != tuple(shape):
                raise CheckpointError(f"{self.name}: {key} is {self.shapes[key]}; expected {tuple(shape)}.")


def _shards(path: Path) -> tuple[Path, ...]:
    """The files that an index names, which lie beside it."""
    indexes = [path] if path.is_file() else sorted(path.glob(f"*{INDEX}"))
    if not indexes:
        raise CheckpointError(f"{path.name} is a folder without an index (*{INDEX}); name the safetensors file itself.")
    try:
        names = set(json.loads(indexes[0].read_text("utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, OSError) as fault:
        raise CheckpointError(f"{indexes[0].name} is no index of shards ({fault!r}); fetch it again.") from fault
    if strange := [name for name in names if Path(name).name != name]:
        raise CheckpointError(f"{indexes[0].name} names {strange[0]!r}; expected files beside it.")
    folder = indexes[0].parent
    if missing := sorted(name for name in names if not (folder / name).is_file()):
        raise CheckpointError(f"{folder.name}: the shard {missing[0]} is missing ({len(missing)} in all); fetch it.")
    return tuple(folder / name for name in sorted(names))


def _opened(path: Path) -> safe_open:
    try:
        return safe_open(path, "pt")
    except (SafetensorError, OSError) as fault:
        raise CheckpointError(
            f"{path.name} cannot be read ({fault}); it may be cut short or no safetensors file: fetch it again."
        ) from fault


def identity(name: str, weights: Mapping[str, Tensor], each: Callable[[], None] = lambda: None) -> str:
    """A digest of every key, shape, dtype and the first 4 kB of each tensor; `each` is called after every tensor.

    Raises CheckpointError where a tensor is not finite: small ones are searched in full, large ones at their head.
    """
    sha = hashlib.sha256()
    for key in sorted(weights):
        tensor = weights[key]
        sha.update(json.dumps([key, list(tensor.shape), str(tensor.dtype)]).encode())
        head = tensor.flatten()[: max(HEAD // max(tensor.element_size(), 1), 1)].cpu().contiguous()
        sha.update(head.view(torch.uint8).numpy().tobytes() if head.numel() else b"")
        looked = tensor if tensor.numel() <= SMALL else head
        if looked.is_floating_point() and not _finite(looked):
            raise CheckpointError(f"{name}: {key} holds values that are not finite (NaN); fetch the file again.")
        each()
    return sha.hexdigest()


def _finite(x: Tensor) -> bool:
    """Is every value finite? A finite sum says so in one pass; only a sum that is not needs a look at each value."""
    total = x.sum(dtype=torch.float32) if x.element_size() > 1 else x.float().sum()
    return bool(torch.isfinite(total)) or bool(torch.isfinite(x.float()).all())


def cast(
    weights: Mapping[str, Tensor], dtype: torch.dtype, keep: Callable[[str], bool], by_rows: bool = False
) -> Iterator[tuple[str, Tensor]]:
    """Tensors in another dtype, one by one; those to `keep` stay as they are.

    `by_rows` gives float8 with a scale for each row, which follows its weight.
    """
    for key, tensor in weights.items():
        floating = tensor.is_floating_point() and tensor.numel() > 0
        if keep(key) or not floating:
            yield key, tensor
        elif by_rows:
            weight, scales = to_rows(tensor)
            yield key, weight
            yield f"{key.removesuffix('weight')}{SCALE}", scales
        else:
            yield key, tensor.to(dtype)
