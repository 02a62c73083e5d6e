"""A HunyuanVideo checkpoint to a FramePack one and back, tensor by tensor.

Names of diffusers, of the original release and of ComfyUI's single files are understood. Packing layers are made by
interpolation from the base patchify layer (paper section 3.1). What was done is in the metadata, so that the way back
gives the original, bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..packing.kernels import LAYER_NAMES, interpolated
from ..units import BASE
from .files import DTYPES, Checkpoint
from .keymaps import Fused, ours
from .writing import write

PROVENANCE = "framepack.conversion"
PATCHIFY = "x_embedder.proj"
SWAPPED = {"final_layer.adaLN_modulation.1": "norm_out.linear"}  # shift and scale stand the other way round


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One tensor's way: from `source` to `targets`, its rows split in the proportions of `parts`."""

    source: str
    targets: tuple[str, ...]
    parts: tuple[int, ...] = (1,)
    swap: bool = False


def plan_of(checkpoint: Checkpoint) -> list[Step]:
    """How each tensor of a HunyuanVideo checkpoint is named here. Raises CheckpointError for another model's."""
    if f"{PATCHIFY}.weight" in checkpoint.shapes:
        if any(key.startswith("clean_x_embedder.") for key in checkpoint.shapes):
            raise CheckpointError(f"{checkpoint.name} is a FramePack model already; nothing is to be converted.")
        return [Step(source=key, targets=(key,)) for key in checkpoint.shapes]
    steps, strange = [], []
    for key in checkpoint.shapes:
        module, _, part = key.rpartition(".")
        fused = Fused(names=(SWAPPED[module],), parts=(1,)) if module in SWAPPED else ours(module)
        if fused is None:
            strange.append(key)
            continue
        names = tuple(f"{name}.{'weight' if part == 'scale' else part}" for name in fused.names)
        steps.append(Step(source=key, targets=names, parts=fused.parts, swap=module in SWAPPED))
    if strange or not any(step.targets[0] == f"{PATCHIFY}.weight" for step in steps):
        what = f"has {strange[0]}" if strange else "has no patchify layer"
        raise CheckpointError(
            f"{checkpoint.name} {what}; expected a HunyuanVideo model with diffusers' names, the original's or "
            "ComfyUI's, whole and not half converted."
        )
    return steps


def convert(source: Path, target: Path) -> int:
    """Write a FramePack checkpoint; returns its number of tensors. Raises CheckpointError."""
    checkpoint = Checkpoint.open(source)
    steps = plan_of(checkpoint)
    layout, tensors = {}, checkpoint.tensors()
    for step in steps:
        dtype, shape = DTYPES[checkpoint.dtypes[step.source]], tuple(checkpoint.shapes[step.source])
        for name, rows in zip(step.targets, _rows(step, shape), strict=True):
            layout[name] = (dtype, (rows, *shape[1:]) if shape else ())
    dtype, (width, channels, *_) = layout[f"{PATCHIFY}.weight"]
    kernels = [kernel for kernel in LAYER_NAMES if kernel.t <= 4]  # as the released weights
    for kernel in kernels:
        layer = f"clean_x_embedder.{LAYER_NAMES[kernel]}"
        layout[f"{layer}.weight"] = (dtype, (width, channels, kernel.t, kernel.h, kernel.w))
        layout[f"{layer}.bias"] = layout[f"{PATCHIFY}.bias"]
    done = {"source": checkpoint.name, "steps": [[s.source, s.targets, s.parts, s.swap] for s in steps]}

    def each() -> Iterator[tuple[str, Tensor]]:
        for step in steps:
            yield from zip(step.targets, _split(step, tensors[step.source]), strict=True)
        base = next(s.source for s in steps if s.targets[0] == f"{PATCHIFY}.weight")
        bias = next(s.source for s in steps if s.targets[0] == f"{PATCHIFY}.bias")
        for kernel in kernels:
            layer = f"clean_x_embedder.{LAYER_NAMES[kernel]}"
            weight = tensors[base] if kernel == BASE else interpolated(tensors[base].float(), kernel).to(dtype)
            yield f"{layer}.weight", weight
            yield f"{layer}.bias", tensors[bias]

    write(target, layout, each(), dict(checkpoint.metadata) | {PROVENANCE: json.dumps(done)})
    return len(layout)


def restore(source: Path, target: Path) -> int:
    """Write the checkpoint that a converted one was made from; returns its number of tensors. CheckpointError."""
    checkpoint = Checkpoint.open(source)
    if PROVENANCE not in checkpoint.metadata:
        raise CheckpointError(f"{checkpoint.name} does not say what it was made from; expected a converted checkpoint.")
    steps = [
        Step(source=a, targets=tuple(b), parts=tuple(c), swap=d)
        for a, b, c, d in json.loads(checkpoint.metadata[PROVENANCE])["steps"]
    ]
    tensors, layout = checkpoint.tensors(), {}
    for step in steps:
        shapes = [checkpoint.shapes[name] for name in step.targets]
        shape = (sum(s[0] for s in shapes), *shapes[0][1:]) if shapes[0] else ()
        layout[step.source] = (DTYPES[checkpoint.dtypes[step.targets[0]]], shape)

    def each() -> Iterator[tuple[str, Tensor]]:
        for step in steps:
            parts = [tensors[name] for name in step.targets]
            whole = torch.cat(parts) if len(parts) > 1 else parts[0]
            yield step.source, _swapped(whole) if step.swap else whole

    metadata = {key: value for key, value in checkpoint.metadata.items() if key != PROVENANCE}
    write(target, layout, each(), metadata)
    return len(layout)


def _rows(step: Step, shape: tuple[int, ...]) -> list[int]:
    """The rows that each target takes of a tensor of a shape. Raises CheckpointError where they do not divide."""
    if len(step.targets) == 1:
        return [shape[0] if shape else 1]
    rows, widths = shape[0], sum(step.parts)
    if rows % widths:
        raise CheckpointError(f"{step.source} has {rows} rows; expected a multiple of {widths}")
    return [rows // widths * part for part in step.parts]


def _split(step: Step, tensor: Tensor) -> list[Tensor]:
    if len(step.targets) == 1:
        return [_swapped(tensor) if step.swap else tensor]
    return list(tensor.split(_rows(step, tuple(tensor.shape))))


def _swapped(tensor: Tensor) -> Tensor:
    first, second = tensor.chunk(2)
    return torch.cat([second, first])
