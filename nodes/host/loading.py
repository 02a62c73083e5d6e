"""MODEL from a checkpoint: checked by its header, mapped from disk, in the host's dtype or one that is asked for."""

from __future__ import annotations

import logging
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import torch
from torch import Tensor

from ...framepack.checkpoints.detect import known, looks_like, without_prefix
from ...framepack.checkpoints.files import Checkpoint, cast, identity
from ...framepack.checkpoints.fp8 import SCALE
from ...framepack.errors import CheckpointError
from ...framepack.models.backbones import Backbone, backbone_of
from ...framepack.nn.attention import attention_named
from ...framepack.packing.kernels import LAYER_NAMES
from ...framepack.shapes import builtin
from .aside import keep_constants, set_aside
from .bar import Bar
from .fp8 import RowOperations
from .models.packed import PackedConfig, PackedModel, StatedLatentFormat, host_attention

log = logging.getLogger(__name__)

IDENTITY, ORDER = "framepack.identity", "framepack.order"  # attachments of a patcher
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
SCALED = "scaled_fp8"  # marks a file of scaled fp8; writers leave its own values as memory held them, often NaN
FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)


def load_model(
    path: str,
    weight_dtype: str = "default",
    attention: str = "host",
    order: str = "auto",
    operations: Any = None,
    disable_dynamic: bool = False,
) -> comfy.model_patcher.ModelPatcher:
    """MODEL from a file, an index or a folder of shards. Raises CheckpointError, MissingPackageError.

    `operations` replaces the host's layers (GGUF). `disable_dynamic` is the host's, for copies on other devices.
    """
    attend = host_attention if attention == "host" else attention_named(attention)
    checkpoint = Checkpoint.open(path)
    backbone = _backbone(checkpoint)
    config = _config(checkpoint, backbone, operations)
    weight_dtype = _by_rows_or(weight_dtype, config, checkpoint)
    device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    _set_dtypes(config, checkpoint, DTYPES[weight_dtype], device)
    # The host's quantized layers make their weights while they are filled, so they must be on a device.
    model = config.get_model({}, device=torch.device("meta") if config.layer_quant_config is None else offload)
    model.diffusion_model.attention = attend
    patcher_class = comfy.model_patcher.ModelPatcher
    if not disable_dynamic:
        patcher_class = getattr(comfy.model_patcher, "CoreModelPatcher", patcher_class)
    if patcher_class is comfy.model_patcher.ModelPatcher and operations is None:  # dynamic VRAM needs no such help
        set_aside(model.diffusion_model)
    expected = {k: tuple(v.shape) for k, v in model.diffusion_model.state_dict().items()}
    checkpoint.check(expected, optional=lambda key: key.endswith((".scale_weight", ".scale_input")))
    weights = checkpoint.tensors()
    weights.pop(SCALED, None)
    progress = Bar(2 * len(weights))
    digest = identity(checkpoint.name, weights, each=progress.update)
    _fill(model, _in_dtype(weights, config, backbone, progress))
    patcher = patcher_class(model, load_device=device, offload_device=offload)
    keep_constants(patcher)
    patcher.set_attachments(IDENTITY, digest)
    patcher.set_attachments(ORDER, order_of(checkpoint.name, order))
    options = (weight_dtype, attention, order, operations)
    patcher.cached_patcher_init = (load_model, (path, *options))
    log.info("%s", describe(patcher, checkpoint.name))
    return patcher


def _backbone(checkpoint: Checkpoint) -> Backbone:
    """Whose checkpoint it is. Raises CheckpointError for another model's, or one that must be converted first."""
    name, keys = checkpoint.name, checkpoint.shapes
    backbone = backbone_of(keys)
    if backbone is None:
        raise CheckpointError(
            f"{name}: {looks_like(keys)}, and is no FramePack model; expected FramePackI2V_HY, FramePack_F1_I2V_HY, or "
            f"a {known()} model converted by: python -m framepack convert SOURCE TARGET."
        )
    if backbone.own not in keys:
        raise CheckpointError(
            f"{name}: a {backbone.name} model under its original names, without packing layers; convert it first: "
            "python -m framepack convert SOURCE TARGET."
        )
    return backbone


def _config(checkpoint: Checkpoint, backbone: Backbone, operations: Any) -> PackedConfig:
    """The host's description of the checkpoint's model. Raises CheckpointError for another model's."""
    try:
        spec = backbone.spec.from_shapes(checkpoint.shapes, checkpoint.metadata)
    except CheckpointError as fault:
        raise CheckpointError(f"{checkpoint.name}: {fault}") from None
    stated = builtin.read_latent_format(dict(checkpoint.metadata))
    hosting = import_module(f"{__package__}.models.{backbone.key}")
    config = hosting.CONFIG(spec, StatedLatentFormat(stated) if stated else hosting.latent_format())
    config.custom_operations = operations
    if SCALED in checkpoint.shapes:
        held = set(checkpoint.dtypes.values())
        config.scaled_fp8 = torch.float8_e5m2 if "F8_E5M2" in held else torch.float8_e4m3fn
    detect = getattr(comfy.model_detection, "detect_layer_quantization", None)
    if detect is not None and "_quantization_metadata" in checkpoint.metadata:
        layers = detect(dict(checkpoint.metadata))
        config.layer_quant_config = {without_prefix(name): layer for name, layer in layers.items()}
    return config


def _by_rows_or(weight_dtype: str, config: PackedConfig, checkpoint: Checkpoint) -> str:
    """The weight dtype, which is by rows where the file is and nothing is asked for; by rows, layers take their scales.

    Raises CheckpointError where the file has other scales already.
    """
    if _is_scaled(config) and weight_dtype == BY_ROWS:
        raise CheckpointError(f"{checkpoint.name}: its weights have scales already; load it with weight_dtype default.")
    saved_by_rows = any(key.endswith(SCALE) for key in checkpoint.shapes)
    if saved_by_rows or weight_dtype == BY_ROWS:  # asked for another dtype, scales stay with it
        config.custom_operations = RowOperations
    return BY_ROWS if saved_by_rows and weight_dtype == "default" else weight_dtype


def _set_dtypes(config: PackedConfig, checkpoint: Checkpoint, asked: torch.dtype | None, device: Any) -> None:
    """The dtype of the weights: what is asked for, else the host's choice, but never wider than the file's."""
    supported, found = list(config.supported_inference_dtypes), checkpoint.dtype
    num = sum(torch.Size(shape).numel() for shape in checkpoint.shapes.values())
    chosen = comfy.model_management.unet_dtype(model_params=num, supported_dtypes=supported, weight_dtype=found)
    dtype = asked or (found if found.itemsize < chosen.itemsize else chosen)
    quantized = config.layer_quant_config is not None
    compute = comfy.model_management.unet_manual_cast(None if quantized else dtype, device, supported)
    config.set_inference_dtype(dtype, compute)


def _is_scaled(config: PackedConfig) -> bool:
    """Do the layers take their weights as the file has them: scaled in it, or another pack's?"""
    return bool(config.scaled_fp8 is not None or config.layer_quant_config is not None or config.custom_operations)


def _in_dtype(weights: dict[str, Tensor], config: PackedConfig, backbone: Backbone, progress: Bar) -> dict[str, Tensor]:
    """Weights in the model's dtype, where that is another than theirs; fp8 only where it may be."""
    dtype, rows = config.unet_config["dtype"], config.custom_operations is RowOperations
    as_they_are = _is_scaled(config) and not rows

    def keep(key: str) -> bool:
        return (
            as_they_are
            or key.endswith(SCALE)
            or weights[key].dtype == dtype
            or (dtype in FP8 and not backbone.in_fp8.fullmatch(key))
        )

    found = {}
    for key, tensor in cast(weights, dtype, keep, rows and dtype == DTYPES[BY_ROWS]):
        found[key] = tensor
        progress.update(not key.endswith(SCALE))
    return found


def _fill(model: PackedModel, weights: dict[str, Tensor]) -> None:
    """Put the tensors themselves in place of the model's empty ones, so that nothing is copied."""
    dit = model.diffusion_model
    quantized = model.model_config.layer_quant_config is not None
    missing, unexpected = dit.load_state_dict(weights, strict=False, assign=not quantized)
    if unexpected:
        log.warning("%d tensors of the file are not the model's: %s ...", len(unexpected), unexpected[0])
    for key in missing:  # optional scales
        owner, _, name = key.rpartition(".")
        setattr(dit.get_submodule(owner), name, torch.nn.Parameter(torch.ones(()), requires_grad=False))
    dit.requires_grad_(False)
    model.device = comfy.model_management.unet_offload_device()


def order_of(name: str, asked: str = "auto") -> str:
    """The order that a checkpoint was trained for, `inverted` or `forward`: its keys do not tell, its name may."""
    if asked != "auto":
        return asked
    return "forward" if re.search(r"(?i)(?<![a-z0-9])f1(?![0-9a-z])", Path(name).stem) else "inverted"


def order_trained(patcher: comfy.model_patcher.ModelPatcher) -> str | None:
    """The order that a MODEL was loaded as trained for."""
    return patcher.get_attachment(ORDER)


def describe(patcher: comfy.model_patcher.ModelPatcher, name: str) -> str:
    """What was found in a file, in a line."""
    dit = patcher.model.diffusion_model
    dtype = str(dit.dtype).removeprefix("torch.")
    if patcher.model.model_config.custom_operations is RowOperations:
        dtype += " with a scale for each row"
    lacking = ", ".join(str(kernel) for kernel in LAYER_NAMES if kernel not in dit.spec.kernels)
    return (
        f"{name}: {dit.spec.blocks_said} blocks, {dit.spec.width} wide, kernels "
        f"{', '.join(map(str, dit.spec.kernels))}{f' ({lacking} interpolated)' if lacking else ''}, {dtype}, "
        f"for {patcher.get_attachment(ORDER)} order"
    )
