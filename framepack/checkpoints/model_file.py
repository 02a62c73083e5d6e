"""A FramePack model's file, understood and checked by its header before anything large is read or allocated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..models.backbones import Backbone, backbone_of, backbone_with
from .detect import known, looks_like
from .files import DTYPES, Checkpoint
from .gguf_file import ARCHITECTURE, open_checkpoint
from .quantized import Quantization, check_unknown, read_quantization

STATED = "framepack."  # metadata of ours: what shapes cannot tell


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A checkpoint, whose model it is, its sizes, and how it is quantized; `unknown` keys are no model's."""

    checkpoint: Checkpoint
    backbone: Backbone
    spec: Any
    quantization: Quantization
    unknown: tuple[str, ...]

    @classmethod
    def open(cls, path: Path | str) -> ModelFile:
        """Read the header. Raises CheckpointError for all that is not a whole FramePack model, MissingPackageError."""
        return cls.of(open_checkpoint(path))

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> ModelFile:
        """The model in a checkpoint. Raises CheckpointError for all that is not a whole FramePack model."""
        quantization = read_quantization(checkpoint)
        shapes = quantization.shapes(checkpoint)
        backbone = _backbone(checkpoint)
        spec = _spec(checkpoint, backbone, shapes)
        expected = shapes_of(spec)
        _check_shapes(checkpoint.name, shapes, expected)
        _check_dtypes(checkpoint, quantization, expected)
        unknown = check_unknown(checkpoint, quantization, expected)
        return cls(
            checkpoint=checkpoint, backbone=backbone, spec=spec, quantization=quantization, unknown=tuple(unknown)
        )

    @property
    def stated(self) -> dict[str, str]:
        """The metadata that a copy of the model must keep."""
        return {key: text for key, text in self.checkpoint.metadata.items() if key.startswith(STATED)}


@lru_cache(maxsize=4)
def shapes_of(spec: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of a model's tensors, by its sizes, however a file or a host holds them."""
    dit = backbone_with(spec).dit
    return {key: tuple(tensor.shape) for key, tensor in dit(spec, device="meta").state_dict().items()}


def _backbone(checkpoint: Checkpoint) -> Backbone:
    """Whose checkpoint it is. Raises CheckpointError for another model's, or one that must be converted first."""
    name, keys = checkpoint.name, checkpoint.shapes
    backbone = backbone_of(keys)
    if backbone is None:
        stated = checkpoint.metadata.get(ARCHITECTURE)
        kind = f"a GGUF file of {stated[:64]}" if stated else looks_like(keys)
        raise CheckpointError(
            f"{name} is no FramePack model: {kind}. Use FramePackI2V_HY, FramePack_F1_I2V_HY, or a "
            f"{known()} model converted by: python -m framepack convert SOURCE TARGET."
        )
    if backbone.own not in keys:
        raise CheckpointError(
            f"{name} is a {backbone.name} model under its original names, without packing layers. Convert it first: "
            "python -m framepack convert SOURCE TARGET."
        )
    return backbone


def _spec(checkpoint: Checkpoint, backbone: Backbone, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """The model's sizes. Raises CheckpointError where shapes or metadata are no model's."""
    try:
        return backbone.spec.from_shapes(shapes, checkpoint.metadata)
    except CheckpointError as fault:
        raise CheckpointError(f"{checkpoint.name} has the names of {backbone.name}. {fault}") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as fault:
        raise CheckpointError(
            f"{checkpoint.name}: its shapes or its metadata are no {backbone.name} model's ({fault!r}). Get the file "
            "again."
        ) from fault


def _check_shapes(name: str, shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Every tensor of the model is there in its shape."""
    if missing := sorted(expected.keys() - shapes.keys()):
        raise CheckpointError(f"{name}: {len(missing)} tensors are missing, such as {missing[0]}. Get the file again.")
    for key, shape in expected.items():
        if shapes[key] != shape:
            raise CheckpointError(f"{name}: {key} must be {shape}; got {shapes[key]}. It is of another model.")


def _check_dtypes(checkpoint: Checkpoint, quantization: Quantization, expected: Mapping[str, Any]) -> None:
    """Every tensor of the model is floating, but for layers whose format is stated."""
    kinds = checkpoint.kinds
    for key in expected:
        stated = key.removesuffix(".weight") in quantization.formats
        if checkpoint.dtypes[key] not in DTYPES and not stated and key not in kinds:
            raise CheckpointError(
                f"{checkpoint.name}: {key} is {checkpoint.dtypes[key]}, and nothing states its format. Use a bf16, fp8 "
                "or GGUF file of this model."
            )
