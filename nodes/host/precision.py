"""In which precision a file's weights are held: as they are, in another dtype, or in formats of the host's own."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ...framepack.checkpoints.files import DTYPES as FILE_DTYPES
from ...framepack.checkpoints.files import STATED, cast
from ...framepack.checkpoints.fp8 import SCALE, as_rows, from_rows
from ...framepack.checkpoints.gguf_blocks import dequantized
from ...framepack.checkpoints.model_file import ModelFile
from ...framepack.checkpoints.quantized import FLOAT8, Quantization
from ...framepack.errors import CheckpointError
from .gguf import HELD, KIND
from .versions import quantized_formats

log = logging.getLogger(__name__)

DTYPES = {
    "default": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
    "fp8_e4m3fn_scaled": torch.float8_e4m3fn,
}
BY_ROWS = "fp8_e4m3fn_scaled"  # one scale for each row of a matrix
FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """The dtype of the weights, and of the products or None for the same; which layers have scales or a host's format.

    `scaled`: float8 weights keep their scales, which their layers apply. `by_rows`: the file's weights get such scales.
    `blocks` are the types of GGUF's in the file.
    """

    dtype: torch.dtype
    compute: torch.dtype | None
    quantization: Quantization
    scaled: bool
    by_rows: bool
    blocks: frozenset[str] = frozenset()

    @property
    def as_they_are(self) -> bool:
        """Do the layers take the file's weights as they are?"""
        return bool(self.quantization.formats or self.blocks) or (self.scaled and not self.by_rows)

    def __str__(self) -> str:
        """For people."""
        if self.quantization.formats:
            return f"{_listed(self.quantization.names)} in {len(self.quantization.formats)} layers"
        if self.blocks:
            return f"GGUF {_listed(self.blocks)}"
        return str(self.dtype).removeprefix("torch.") + (" with scales" if self.scaled else "")


def precision_of(file: ModelFile, weight_dtype: str, supported: list[torch.dtype], device: Any) -> Precision:
    """How to hold a file's weights, by what is asked for, the host and the device. Raises CheckpointError."""
    fp8_fits = all(comfy.model_management.supports_cast(device, dtype) for dtype in FP8)
    asked = DTYPES[weight_dtype]
    if asked in FP8 and not fp8_fits:
        log.warning("%s: %s cannot hold fp8, so weight_dtype is default.", file.checkpoint.name, device)
        weight_dtype, asked = "default", None
    quantization, blocks = _formats_for(file, fp8_fits), set(file.checkpoint.kinds.values())
    if asked is not None and (names := quantization.names | blocks):
        raise CheckpointError(
            f"{file.checkpoint.name}: its layers are quantized ({_listed(names)}), so weight_dtype cannot be "
            f"{weight_dtype}. Use default."
        )
    kept = bool(quantization.scales) and fp8_fits and not quantization.formats and weight_dtype in ("default", BY_ROWS)
    held = file.checkpoint.dtype
    narrow = blocks or quantization.formats or (quantization.scales and not kept) or (held in FP8 and not fp8_fits)
    dtype = _scaled(file, quantization) if kept else asked or _chosen(file, supported, None if narrow else held)
    source = None if quantization.formats or blocks else dtype
    return Precision(
        dtype=dtype,
        compute=comfy.model_management.unet_manual_cast(source, device, supported),
        quantization=quantization,
        scaled=kept or weight_dtype == BY_ROWS,
        by_rows=weight_dtype == BY_ROWS and not kept,
        blocks=frozenset(blocks),
    )


def _formats_for(file: ModelFile, fp8_fits: bool) -> Quantization:
    """The file's quantization, in the host's formats where it has them. Raises CheckpointError for others."""
    quantization, known = file.quantization, quantized_formats()
    if quantization.names - known or (not fp8_fits and quantization.names & set(FLOAT8)):
        quantization = quantization.as_scales()
    if lacking := quantization.names - known:
        layer = next(name for name, stated in quantization.formats.items() if stated["format"] in lacking)
        raise CheckpointError(
            f"{file.checkpoint.name}: {layer} is quantized as {_listed(lacking)}, which this ComfyUI does not have. "
            "Update ComfyUI, or use a bf16, fp8 or GGUF file of this model."
        )
    return quantization


def _scaled(file: ModelFile, quantization: Quantization) -> torch.dtype:
    """The dtype of the weights that have scales."""
    return FILE_DTYPES[file.checkpoint.dtypes[f"{next(iter(quantization.scales))}.weight"]]


def _chosen(file: ModelFile, supported: list[torch.dtype], held: torch.dtype | None) -> torch.dtype:
    """The host's choice for a file whose weights are `held` in a dtype, but never wider than that."""
    num = sum(torch.Size(shape).numel() for shape in file.checkpoint.shapes.values())
    chosen = comfy.model_management.unet_dtype(model_params=num, supported_dtypes=supported, weight_dtype=held)
    return held if held is not None and held.itemsize < chosen.itemsize else chosen


def in_precision(
    file: ModelFile, weights: Mapping[str, Tensor], precision: Precision, each: Callable[[], None]
) -> dict[str, Tensor]:
    """A file's tensors as the model takes them; `each` is called after every one."""
    quantization, found = precision.quantization, {}
    beside, kinds = {*quantization.spare, *quantization.scales.values()}, file.checkpoint.kinds

    def keep(key: str, tensor: Tensor) -> bool:
        outside = precision.dtype in FP8 and not file.backbone.in_fp8.fullmatch(key)
        return precision.as_they_are or outside or tensor.dtype == precision.dtype

    for key, tensor in weights.items():
        name, _, part = key.rpartition(".")
        if key in kinds:
            found |= _blocks(file, key, tensor, precision.dtype)
        elif key not in beside:
            if part == "weight" and name in quantization.scales:
                scales = as_rows(weights[quantization.scales[name]])
                if precision.as_they_are and tensor.ndim == 2:
                    found[f"{name}.{SCALE}"] = scales
                else:
                    tensor = from_rows(tensor, scales)
            found |= cast(key, tensor, None if keep(key, tensor) else precision.dtype, precision.by_rows)
        each()
    for name, stated in quantization.formats.items():
        found[f"{name}.{STATED}"] = torch.tensor(list(json.dumps(stated).encode()), dtype=torch.uint8)
    return found


def _blocks(file: ModelFile, key: str, tensor: Tensor, dtype: torch.dtype) -> dict[str, Any]:
    """A tensor in GGUF's blocks as a linear layer holds it; any other layer gets its values."""
    kind, shape = file.checkpoint.kinds[key], file.checkpoint.shapes[key]
    if not torch.isfinite(dequantized(tensor[:1], kind)).all():  # as of large tensors, the head is searched
        raise CheckpointError(
            f"{file.checkpoint.name}: {key} holds values that are not finite (NaN or infinite). Get the file again."
        )
    if key.endswith(".weight") and len(shape) == 2:
        name = key.removesuffix("weight")
        return {f"{name}{HELD}": tensor, f"{name}{KIND}": kind}
    return {key: dequantized(tensor, kind, dtype).view(shape)}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
