"""Write GGUF files tensor by tensor, quantized by the package gguf.

Only the matrices of attention and feed-forward take the type that is asked for; modulations, whose error all tokens of
a block share, are Q8_0. Packing layers, embeddings and the last layer are F16, vectors F32.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import CheckpointError
from ..models.backbones import Backbone
from ..nn.layers import Modulation
from .files import OURS
from .gguf_blocks import BLOCKS
from .gguf_file import package
from .writing import Layout, check_new

TYPES = ("Q8_0", "Q4_0")  # that can be asked for
FINE = "Q8_0"  # of modulations
ARCHITECTURES = {"hunyuan": "hyvid"}  # as ComfyUI-GGUF names them, where that is not the backbone's key
PLAIN = {"F32": np.float32, "F16": np.float16}


def kinds_of(backbone: Backbone, layout: Layout, metadata: Mapping[str, str], kind: str) -> dict[str, str]:
    """The type of every tensor of a model."""
    spec = backbone.spec.from_shapes({name: shape for name, (_, shape) in layout.items()}, metadata)
    modules = backbone.dit(spec, device="meta").named_modules()
    fine = {f"{name}.linear.weight" for name, part in modules if isinstance(part, Modulation) and "blocks." in name}
    found = {}
    for name, (_, shape) in layout.items():
        found[name] = "F32" if len(shape) < 2 else "F16"
        if len(shape) == 2 and shape[1] % BLOCKS[FINE][0] == 0:
            found[name] = kind if backbone.in_fp8.fullmatch(name) else FINE if name in fine else "F16"
    return found


def write_gguf(
    path: Path,
    layout: Layout,
    tensors: Iterable[tuple[str, Tensor]],
    metadata: Mapping[str, str],
    backbone: Backbone,
    kind: str,
) -> None:
    """Write `tensors` in the order of `layout` into a new file. It appears complete or not at all.

    Raises CheckpointError where one exists already, its folder does not, or a tensor has no place in its type;
    MissingPackageError without gguf.
    """
    check_new(path)
    gguf, kinds = package(), kinds_of(backbone, layout, metadata, kind)
    part = path.with_name(path.name + ".part")
    writer = gguf.GGUFWriter(part, ARCHITECTURES.get(backbone.key, backbone.key))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for name, text in metadata.items():
        if name.startswith(OURS):
            writer.add_string(name, text)
    for name, (_, shape) in layout.items():
        _announce(gguf, writer, name, shape, kinds[name])
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, tensor in tensors:
            writer.write_tensor_data(_quantized(gguf, name, tensor, kinds[name]))
        writer.flush()
        os.fsync(writer.fout[0].fileno())
        writer.close()
        part.replace(path)
    except BaseException:
        writer.close()
        part.unlink(missing_ok=True)
        raise


def _announce(gguf: ModuleType, writer: Any, name: str, shape: tuple[int, ...], kind: str) -> None:
    """Put a tensor's size into the header."""
    if kind in PLAIN:
        dtype = np.dtype(PLAIN[kind])
        writer.add_tensor_info(name, shape, dtype, torch.Size(shape).numel() * dtype.itemsize)
    else:
        values, size, _ = BLOCKS[kind]
        stored = (*shape[:-1], shape[-1] // values * size)
        raw = gguf.GGMLQuantizationType[kind]
        writer.add_tensor_info(name, stored, np.dtype(np.uint8), torch.Size(stored).numel(), raw_dtype=raw)


def _quantized(gguf: ModuleType, name: str, tensor: Tensor, kind: str) -> np.ndarray:
    values = tensor.float().contiguous()
    if not torch.isfinite(values.half() if kind != "F32" else values).all():
        raise CheckpointError(f"{name} holds values that are not finite, or too large for {kind}. Get the file again.")
    if kind in PLAIN:
        return values.numpy().astype(PLAIN[kind])
    return gguf.quants.quantize(values.numpy(), gguf.GGMLQuantizationType[kind])
