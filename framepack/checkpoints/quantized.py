"""How a file's matrices are quantized: float8 with scales, in every spelling, or in a format of the host's own.

A layer's scales stand beside its weight: one for the matrix or one for each row, to be multiplied with it. ComfyUI
states its own formats by layer, in a JSON tensor `comfy_quant` or in the file's metadata.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import CheckpointError
from .detect import ancestors, without_prefix
from .files import STATED, Checkpoint
from .fp8 import SCALE

MARKER = "scaled_fp8"  # marks a file of scaled float8; its own values mean nothing and are often NaN
METADATA = "_quantization_metadata"
SCALES = (SCALE, "scale_weight", "weight_scale")  # of weights, all with the same meaning
FOR_INPUTS = ("scale_input", "input_scale")  # of activations that are float8, too; ours are not
FLOAT8 = ("float8_e4m3fn", "float8_e5m2")  # the formats that are float8 with one scale
PACKED = ("nvfp4", "convrot_w4a4", "asym_w4a8_int8")  # two values to a byte
NARROW = {"F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "F4"}  # of weights that mean nothing without their scales
MEANS_SOMETHING = re.compile(r"(?i)scale|quant|zero|absmax")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """What stands beside the weights of a file.

    `scales` gives the key of a float8 layer's scales, `formats` what the host states of a layer, both by the layer's
    name; `parts` are the keys that belong to layers of such formats; `spare` those that change nothing.
    """

    scales: Mapping[str, str] = field(default_factory=dict)
    formats: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    parts: frozenset[str] = frozenset()
    spare: frozenset[str] = frozenset()

    @property
    def names(self) -> set[str]:
        """The host's formats in the file."""
        return {str(stated["format"]) for stated in self.formats.values()}

    def as_scales(self) -> Quantization:
        """The same without the host's float8 formats: their layers are float8 with one scale."""
        float8 = {name for name, stated in self.formats.items() if stated["format"] in FLOAT8}
        scales = {name: f"{name}.weight_scale" for name in float8 if f"{name}.weight_scale" in self.parts}
        own = {key for key in self.parts if key.rpartition(".")[0] in float8}
        return Quantization(
            scales={**self.scales, **scales},
            formats={name: stated for name, stated in self.formats.items() if name not in float8},
            parts=self.parts - own,
            spare=self.spare | (own - set(scales.values())),
        )

    def shapes(self, checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors as a model without quantization has them."""
        beside = {*self.scales.values(), *self.parts, *self.spare}
        found = {key: shape for key, shape in checkpoint.shapes.items() if key not in beside}
        for name, stated in self.formats.items():
            shape = found.get(f"{name}.weight", ())
            if stated["format"] in PACKED and len(shape) == 2:
                found[f"{name}.weight"] = (shape[0], 2 * shape[1])
        return found


def read_quantization(checkpoint: Checkpoint) -> Quantization:
    """What the header says of scales and formats. Raises CheckpointError where that means nothing."""
    formats = _formats(checkpoint)
    scales, parts, spare = {}, set(), set()
    for key, shape in checkpoint.shapes.items():
        name, _, part = key.rpartition(".")
        if name in formats and part not in ("weight", "bias"):
            parts.add(key)
        elif key == MARKER or part in FOR_INPUTS:
            spare.add(key)
        elif part in SCALES and f"{name}.weight" in checkpoint.shapes:
            _check_scales(checkpoint, key, shape, checkpoint.shapes[f"{name}.weight"])
            if name in scales:
                raise CheckpointError(f"{checkpoint.name}: {name} has both {scales[name]} and {key}; remove one.")
            scales[name] = key
    return Quantization(scales=scales, formats=formats, parts=frozenset(parts), spare=frozenset(spare))


def check_unknown(checkpoint: Checkpoint, quantization: Quantization, expected: Iterable[str]) -> list[str]:
    """The tensors that no model has. Raises CheckpointError for one without which quantized weights mean nothing."""
    known = {*expected, *quantization.scales.values(), *quantization.parts, *quantization.spare}
    unknown = sorted(checkpoint.shapes.keys() - known)
    if NARROW & set(checkpoint.dtypes.values()):
        layers = {key.rpartition(".")[0] for key in known}
        for key in unknown:
            layer = next((name for name in ancestors(key) if name in layers), "")
            if MEANS_SOMETHING.search(key[len(layer) :]):
                raise CheckpointError(
                    f"{checkpoint.name}: {key} belongs to a kind of quantization that is not known here. Use a bf16, "
                    "fp8 or GGUF file of this model."
                )
    return unknown


def _formats(checkpoint: Checkpoint) -> dict[str, Mapping[str, Any]]:
    """What the host states of layers, by their names."""
    stated: dict[str, Any] = {}
    if METADATA in checkpoint.metadata:
        layers = _json(checkpoint, METADATA, checkpoint.metadata[METADATA]).get("layers")
        if not isinstance(layers, dict):
            raise CheckpointError(f"{checkpoint.name}: its metadata {METADATA} has no layers; get the file again.")
        stated |= {without_prefix(name): layer for name, layer in layers.items()}
    for key, text in checkpoint.texts.items():
        if key.endswith(f".{STATED}"):
            stated[key.removesuffix(f".{STATED}")] = _json(checkpoint, key, text)
    for name, layer in stated.items():
        if not isinstance(layer, dict) or not isinstance(layer.get("format"), str):
            raise CheckpointError(f"{checkpoint.name}: {name} is quantized in the format {layer!r}, which is no name.")
        if f"{name}.weight" not in checkpoint.shapes:
            raise CheckpointError(f"{checkpoint.name}: {name} is stated as {layer['format']}, but has no weight.")
    return stated


def _json(checkpoint: Checkpoint, key: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (RecursionError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise CheckpointError(f"{checkpoint.name}: {key} is {text[:80]!r}, which is no JSON object. Get it again.")
    return found


def _check_scales(checkpoint: Checkpoint, key: str, shape: tuple[int, ...], weight: tuple[int, ...]) -> None:
    """One scale, or one for each row of the weight."""
    rows = weight[0] if weight else 1
    if tuple(shape) not in ((), (1,), (1, 1), (rows,), (rows, 1)):
        raise CheckpointError(
            f"{checkpoint.name}: {key} is {tuple(shape)} beside a weight of {tuple(weight)}; scales for a whole matrix "
            "or for each row are known. Use a bf16, fp8 or GGUF file of this model."
        )
