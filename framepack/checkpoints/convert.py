"""A video model's checkpoint to a FramePack one and back, tensor by tensor.

Every backbone's names are understood: those of diffusers, of the original release and of ComfyUI's single files.
Packing layers are made by interpolation from the base patchify layer (paper section 3.1). What was done is in the
metadata, so that the way back gives the original, bit for bit. The target may be GGUF, with quantized matrices.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..models.backbones import Backbone, backbone_of, backbones
from ..models.names import swapped
from ..packing.kernels import interpolated
from ..units import BASE
from .detect import known, looks_like
from .files import DTYPES, Checkpoint
from .gguf_blocks import BLOCKS, dequantized
from .gguf_file import SUFFIX, open_checkpoint
from .gguf_writing import TYPES, write_gguf
from .model_file import ModelFile
from .quantized import read_quantization
from .writing import Layout, write

PROVENANCE = "framepack.conversion"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One tensor's way: from `source` to `targets`, its rows split in the proportions of `parts`."""

    source: str
    targets: tuple[str, ...]
    parts: tuple[int, ...] = (1,)
    swap: bool = False


def plan_of(checkpoint: Checkpoint, wanted: str | None = None) -> tuple[Backbone, list[Step]]:
    """The backbone of a checkpoint, or the one that is wanted of it, and how each of its tensors is named here.

    Raises CheckpointError for another model's, a half converted one, and one that is converted already.
    """
    name, keys = checkpoint.name, checkpoint.shapes
    backbone = backbone_of(keys)
    if backbone is None:
        raise CheckpointError(f"{name} is no {known()} model: {looks_like(keys)}. Convert one of those.")
    if wanted is not None:
        backbone = next(found for found in backbones() if found.key == wanted)
    if backbone.is_packed(keys):
        raise CheckpointError(f"{name} is a FramePack model already. Load it as it is.")
    if {backbone.own, backbone.original} <= keys.keys():
        raise CheckpointError(
            f"{name} has {backbone.own} and {backbone.original}, so it is half converted. Start from the original."
        )
    _check_plain(checkpoint)
    if backbone.own in keys:
        return backbone, [Step(source=key, targets=(key,)) for key in keys]
    steps = []
    for key in keys:
        found = backbone.names.tensor(key)
        if found is None:
            raise CheckpointError(
                f"{name} is {backbone.name} by its other names, but has {key}: {looks_like([key])}. Convert a whole "
                "model with diffusers' names, the original's or ComfyUI's, not half converted."
            )
        steps.append(Step(source=key, targets=found.names, parts=found.parts, swap=found.swap))
    return backbone, steps


def convert(source: Path, target: Path, kind: str | None = None, wanted: str | None = None) -> int:
    """Write a FramePack checkpoint, as GGUF where the target's name ends so; returns its number of tensors.

    `kind` is GGUF's type of the large matrices; `wanted` the key of another backbone of the same layers. A FramePack
    model goes from safetensors to GGUF and back; any other gets its packing layers. Raises CheckpointError,
    MissingPackageError.
    """
    checkpoint, to_gguf = open_checkpoint(source), target.name.endswith(SUFFIX)
    if kind is not None and not to_gguf:
        raise CheckpointError(f"--type {kind} is for a target that ends in {SUFFIX}; got {target.name}.")
    other_format = source.name.endswith(SUFFIX) != to_gguf
    backbone = backbone_of(checkpoint.shapes)
    if other_format and backbone and backbone.is_packed(checkpoint.shapes):
        made = _as_it_is(checkpoint)
    else:
        made = _with_packing(checkpoint, wanted)
    if to_gguf:
        write_gguf(target, made.layout, made.tensors, made.metadata, made.backbone, kind or TYPES[0])
    else:
        write(target, made.layout, made.tensors, made.metadata)
    return len(made.layout)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A checkpoint that is about to be written: its tensors are made one by one."""

    backbone: Backbone
    layout: Layout
    tensors: Iterable[tuple[str, Tensor]]
    metadata: Mapping[str, str]


class _Values(Mapping[str, Tensor]):
    """A checkpoint's tensors as values: blocks are dequantized to float16 when they are read."""

    def __init__(self, checkpoint: Checkpoint):
        self.tensors, self.kinds, self.shapes = checkpoint.tensors(), checkpoint.kinds, checkpoint.shapes
        self.dtypes = {key: DTYPES.get(name, torch.float16) for key, name in checkpoint.dtypes.items()}

    def __getitem__(self, key: str) -> Tensor:
        if key not in self.kinds:
            return self.tensors[key]
        return dequantized(self.tensors[key], self.kinds[key], torch.float16).view(self.shapes[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def _as_it_is(checkpoint: Checkpoint) -> _Made:
    """A FramePack model in another format of file."""
    file = ModelFile.of(checkpoint)
    _check_plain(checkpoint)
    values = _Values(checkpoint)
    layout = {key: (values.dtypes[key], tuple(shape)) for key, shape in checkpoint.shapes.items()}
    return _Made(backbone=file.backbone, layout=layout, tensors=values.items(), metadata=file.stated)


def _with_packing(checkpoint: Checkpoint, wanted: str | None) -> _Made:
    """A model that is none of FramePack yet, with packing layers."""
    backbone, steps = plan_of(checkpoint, wanted)
    layout, tensors = {}, _Values(checkpoint)
    for step in steps:
        dtype, shape = tensors.dtypes[step.source], tuple(checkpoint.shapes[step.source])
        for name, rows in zip(step.targets, _rows(step, shape), strict=True):
            layout[name] = (dtype, (rows, *shape[1:]) if shape else ())
    base = {part: f"{backbone.base}.{part}" for part in ("weight", "bias")}
    if lacking := sorted(set(base.values()) - layout.keys()):
        raise CheckpointError(f"{checkpoint.name} has no {lacking[0]}. Convert a whole {backbone.name} model.")
    dtype, (width, channels, *patch) = layout[base["weight"]]
    for kernel, layer in backbone.packing.items():
        sides = (n * side for n, side in zip(kernel.patches, patch, strict=True))
        layout[f"{layer}.weight"] = (dtype, (width, channels, *sides))
        layout[f"{layer}.bias"] = layout[base["bias"]]
    sources = {name: step.source for step in steps for name in step.targets}

    def each() -> Iterator[tuple[str, Tensor]]:
        for step in steps:
            yield from zip(step.targets, _split(step, tensors[step.source]), strict=True)
        weight, bias = (tensors[sources[base[part]]] for part in ("weight", "bias"))
        for kernel, layer in backbone.packing.items():
            wide = weight if kernel == BASE else interpolated(weight.float(), kernel).to(dtype)
            yield f"{layer}.weight", wide
            yield f"{layer}.bias", bias

    done = {
        "source": checkpoint.name,
        "backbone": backbone.name,
        "steps": [[s.source, s.targets, s.parts, s.swap] for s in steps],
    }
    metadata = dict(checkpoint.metadata) | {PROVENANCE: json.dumps(done)}
    return _Made(backbone=backbone, layout=layout, tensors=each(), metadata=metadata)


def restore(source: Path, target: Path) -> int:
    """Write the checkpoint that a converted one was made from; returns its number of tensors. CheckpointError."""
    if target.name.endswith(SUFFIX):
        raise CheckpointError(f"{target.name} cannot be made by --back. Name a file that ends in .safetensors.")
    checkpoint = open_checkpoint(source)
    if PROVENANCE not in checkpoint.metadata:
        raise CheckpointError(f"{checkpoint.name} does not say what it was made from. Choose a converted checkpoint.")
    steps = _stated_steps(checkpoint)
    tensors, layout = _Values(checkpoint), {}
    for step in steps:
        shapes = [checkpoint.shapes[name] for name in step.targets]
        shape = (sum(s[0] for s in shapes), *shapes[0][1:]) if shapes[0] else ()
        layout[step.source] = (tensors.dtypes[step.targets[0]], shape)

    def each() -> Iterator[tuple[str, Tensor]]:
        for step in steps:
            parts = [tensors[name] for name in step.targets]
            whole = torch.cat(parts) if len(parts) > 1 else parts[0]
            yield step.source, swapped(whole) if step.swap else whole

    metadata = {key: value for key, value in checkpoint.metadata.items() if key != PROVENANCE}
    write(target, layout, each(), metadata)
    return len(layout)


def _check_plain(checkpoint: Checkpoint) -> None:
    """Raises CheckpointError where weights mean nothing without their scales."""
    quantization, dtypes = read_quantization(checkpoint), checkpoint.dtypes
    others = [f"{key} ({name})" for key, name in dtypes.items() if name not in DTYPES and name not in BLOCKS]
    if quantized := [*quantization.scales, *quantization.formats, *others]:
        raise CheckpointError(
            f"{checkpoint.name} is quantized, such as {quantized[0]}. Convert a bf16, fp16 or fp32 file."
        )


def _stated_steps(checkpoint: Checkpoint) -> list[Step]:
    """How a converted checkpoint was made. Raises CheckpointError where its metadata says nonsense."""
    try:
        stated = json.loads(checkpoint.metadata[PROVENANCE])["steps"]
        steps = [Step(source=str(a), targets=tuple(b), parts=tuple(c), swap=bool(d)) for a, b, c, d in stated]
        if lacking := sorted({name for step in steps for name in step.targets} - checkpoint.shapes.keys()):
            raise CheckpointError(f"{checkpoint.name} has no {lacking[0]}, which it was made with. Get the file again.")
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as fault:
        if isinstance(fault, CheckpointError):
            raise
        raise CheckpointError(
            f"{checkpoint.name}: its metadata {PROVENANCE} is no list of steps ({fault!r}). Convert it again."
        ) from fault
    return steps


def _rows(step: Step, shape: tuple[int, ...]) -> list[int]:
    """The rows that each target takes of a tensor of a shape. Raises CheckpointError where they do not divide."""
    if len(step.targets) == 1:
        return [shape[0] if shape else 1]
    rows, widths = shape[0] if shape else 1, sum(step.parts)
    if rows % widths:
        raise CheckpointError(f"{step.source} must have a multiple of {widths} rows; got {rows}.")
    return [rows // widths * part for part in step.parts]


def _split(step: Step, tensor: Tensor) -> list[Tensor]:
    if len(step.targets) == 1:
        return [swapped(tensor) if step.swap else tensor]
    return list(tensor.split(_rows(step, tuple(tensor.shape))))
