"""GGUF files by memory map, through the optional package gguf; their header is checked before the package reads it.

Keys and shapes are as in safetensors. Matrices of quantized types stay in their blocks, bytes ``rows bytes``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, MissingPackageError
from .detect import strip_prefix
from .files import DTYPES, Checkpoint
from .gguf_blocks import BLOCKS
from .gguf_header import check_header

SUFFIX = ".gguf"
PART = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
SHAPE = "comfy.gguf.orig_shape."  # metadata of ComfyUI-GGUF: a tensor's shape, where blocks needed another
BESIDE = "fix_5d_tensors_{}.safetensors"  # where ComfyUI-GGUF's converter leaves what llama.cpp's tools cannot hold
ARCHITECTURE = "general.architecture"


def package() -> ModuleType:
    """The package gguf. Raises MissingPackageError where it is not installed."""
    try:
        return import_module("gguf")
    except ImportError as fault:
        raise MissingPackageError("GGUF files need the package gguf. Install it: pip install gguf") from fault


@dataclass(frozen=True, slots=True, kw_only=True)
class GGUFCheckpoint(Checkpoint):
    """A GGUF file's header, and its tensors, which are mapped: those of block types are bytes ``rows bytes``."""

    mapped: Mapping[str, Tensor]

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by its key; memory is touched when a tensor is read."""
        return dict(self.mapped)

    @property
    def kinds(self) -> dict[str, str]:
        """The types of the tensors in blocks, by key."""
        return {key: kind for key, kind in self.dtypes.items() if kind in BLOCKS}


def open_checkpoint(path: Path | str) -> Checkpoint:
    """Read the header of a GGUF or safetensors checkpoint. Raises CheckpointError, MissingPackageError."""
    path = Path(path)
    return _open(path) if path.name.endswith(SUFFIX) else Checkpoint.open(path)


@dataclass(slots=True)
class _Held:
    """What has been read so far, under the file's own names."""

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    mapped: dict[str, Tensor] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)

    def read(self, gguf: ModuleType, part: Path) -> None:
        """Take a file's tensors and texts. Raises CheckpointError."""
        check_header(part)
        try:
            reader = gguf.GGUFReader(part, "c")  # a private map: PyTorch warns of one that it cannot write to
            texts = {name: _text(gguf, held) for name, held in reader.fields.items()}
            self.metadata |= {name: text for name, text in texts.items() if text is not None}
            for tensor in reader.tensors:
                name = tensor.name
                self.shapes[name], self.dtypes[name] = _shape(reader, tensor), tensor.tensor_type.name
                self.mapped[name] = _mapped(tensor, self.shapes[name])
        except (ArithmeticError, LookupError, OSError, RuntimeError, TypeError, ValueError) as fault:
            raise CheckpointError(f"{part.name} cannot be read ({fault}). Get the file again.") from fault

    def add(self, beside: Checkpoint) -> None:
        """Take from another file what this one lacks: it may be of a model of another size."""
        tensors = beside.tensors()
        for key in [key for key in tensors if key not in self.shapes and beside.dtypes[key] in DTYPES]:
            self.shapes[key], self.dtypes[key], self.mapped[key] = beside.shapes[key], beside.dtypes[key], tensors[key]


def _open(path: Path) -> GGUFCheckpoint:
    gguf, paths, held = package(), _parts(path), _Held()
    for part in paths:
        held.read(gguf, part)
    stated = held.metadata.get(ARCHITECTURE, "")[:64]
    if stated.isidentifier() and (beside := path.parent / BESIDE.format(stated)).is_file():
        held.add(Checkpoint.open(beside))
    return GGUFCheckpoint(
        name=path.name,
        paths=paths,
        shapes=strip_prefix(held.shapes),
        dtypes=strip_prefix(held.dtypes),
        metadata=held.metadata,
        texts={},
        mapped=strip_prefix(held.mapped),
    )


def _parts(path: Path) -> tuple[Path, ...]:
    """A file, or all parts of a split one. Raises CheckpointError where one is missing."""
    found = PART.fullmatch(path.name)
    if found is None:
        return (path,)
    count = int(found["count"])
    names = [f"{found['name']}-{number:05}-of-{count:05}{SUFFIX}" for number in range(1, min(count, 1000) + 1)]
    if missing := [name for name in names if not (path.parent / name).is_file()]:
        raise CheckpointError(
            f"{path.name} is one of {count} parts, and {missing[0]} is missing. Put all parts into one folder."
        )
    return tuple(path.parent / name for name in names)


def is_first(name: str) -> bool:
    """Does a name stand for a whole file or for the first part of a split one?"""
    found = PART.search(name)
    return found is None or int(found["number"]) == 1


def _text(gguf: ModuleType, field: Any) -> str | None:
    """A field's text; None for fields that are none."""
    return field.contents() if field.types == [gguf.GGUFValueType.STRING] else None


def _shape(reader: Any, tensor: Any) -> tuple[int, ...]:
    """A tensor's shape, slowest axis first: as the file states it, or as it is stored."""
    stored = tuple(int(n) for n in reversed(tensor.shape.tolist()))
    field = reader.get_field(SHAPE + tensor.name)
    return stored if field is None else tuple(int(n) for n in field.contents())


def _mapped(tensor: Any, shape: tuple[int, ...]) -> Tensor:
    """A tensor on the file's memory; blocks as bytes ``rows bytes``."""
    kind, data = tensor.tensor_type.name, torch.from_numpy(tensor.data)
    if kind in BLOCKS:
        return data.reshape(-1, data.shape[-1])
    return data.view(DTYPES[kind]).reshape(shape)
