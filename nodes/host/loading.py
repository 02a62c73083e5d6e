"""MODEL from a checkpoint: checked by its header, mapped from disk, in the host's dtype or one that is asked for."""

from __future__ import annotations

import logging
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension
import torch
from torch import Tensor

from ...framepack.checkpoints.files import identity
from ...framepack.checkpoints.model_file import ModelFile
from ...framepack.errors import CheckpointError
from ...framepack.nn.attention import attention_named
from ...framepack.packing.kernels import LAYER_NAMES
from ...framepack.shapes import builtin
from .aside import KEY as CONSTANTS
from .aside import keep_constants, set_aside
from .bar import Bar
from .fp8 import RowOperations
from .gguf import GGUFOperations, patch_blocks
from .models.packed import PackedConfig, PackedModel, StatedLatentFormat, host_attention
from .precision import DTYPES, Precision, in_precision, precision_of
from .versions import patcher_class

log = logging.getLogger(__name__)

__all__ = ["DTYPES", "IDENTITY", "ORDER", "describe", "load_model", "order_of", "order_trained"]
# Attachments of a patcher.
FILE, IDENTITY, ORDER, PRECISION = "framepack.file", "framepack.identity", "framepack.order", "framepack.precision"


def load_model(
    path: str,
    weight_dtype: str = "default",
    attention: str = "host",
    order: str = "auto",
    operations: Any = None,
    disable_dynamic: bool = False,
) -> comfy.model_patcher.ModelPatcher:
    """MODEL from a file, an index or a folder of shards. Raises CheckpointError, MissingPackageError.

    `operations` replaces the host's layers. `disable_dynamic` is the host's, for copies on other devices.
    """
    attend = host_attention if attention == "host" else attention_named(attention)
    file = ModelFile.open(path)
    config = _config(file, operations)
    device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    precision = precision_of(file, weight_dtype, list(config.supported_inference_dtypes), device)
    model = _model(config, precision, offload)
    model.diffusion_model.attention = attend
    # Layers with scales or blocks apply patches themselves; dynamic VRAM would add them to what it holds.
    own = config.custom_operations in (RowOperations, GGUFOperations)
    kind = patcher_class(dynamic=not disable_dynamic and not own)
    if kind is comfy.model_patcher.ModelPatcher and operations is None:  # dynamic VRAM needs no such help
        set_aside(model.diffusion_model)
    weights = file.checkpoint.tensors()
    progress = Bar(2 * len(weights))
    meant = {key: tensor for key, tensor in weights.items() if key not in precision.quantization.spare}
    digest = identity(file.checkpoint.name, meant, each=progress.update, stated=file.stated)
    _fill(model, in_precision(file, weights, precision, progress.update), assign=not precision.quantization.formats)
    patcher = kind(model, load_device=device, offload_device=offload)
    keep_constants(patcher)
    if precision.blocks:
        patcher.add_callback_with_key(comfy.patcher_extension.CallbacksMP.ON_LOAD, CONSTANTS, patch_blocks)
    patcher.set_attachments(IDENTITY, digest)
    patcher.set_attachments(FILE, str(path))
    patcher.set_attachments(ORDER, order_of(file.checkpoint.name, order))
    patcher.set_attachments(PRECISION, str(precision))
    options = (weight_dtype, attention, order, operations)
    patcher.cached_patcher_init = (load_model, (path, *options))
    log.info("%s", describe(patcher, file.checkpoint.name))
    return patcher


def latent_format_of(file: ModelFile) -> Any:
    """The host's latent format of a file's model. Raises CheckpointError where its metadata says nonsense."""
    try:
        stated = builtin.read_latent_format(file.stated)
        if stated:
            return StatedLatentFormat(stated)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as fault:
        raise CheckpointError(
            f"{file.checkpoint.name}: its metadata framepack.latent_format is none ({fault!r}). Get the file again."
        ) from fault
    return _hosting(file).latent_format()


def _hosting(file: ModelFile) -> Any:
    """The module of the file's backbone in the host."""
    return import_module(f"{__package__}.models.{file.backbone.key}")


def _config(file: ModelFile, operations: Any) -> PackedConfig:
    """The host's description of the file's model. Raises CheckpointError where its metadata says nonsense."""
    config = _hosting(file).CONFIG(file.spec, latent_format_of(file))
    config.stated = file.stated
    config.custom_operations = operations
    if file.unknown:
        log.warning("%s: %d tensors are not the model's: %s", file.checkpoint.name, len(file.unknown), file.unknown[0])
    return config


def _model(config: PackedConfig, precision: Precision, offload: torch.device) -> PackedModel:
    """The model without weights."""
    config.set_inference_dtype(precision.dtype, precision.compute)
    if precision.scaled:
        config.custom_operations = RowOperations
    if precision.blocks and config.custom_operations is None:
        config.custom_operations, config.savable = GGUFOperations, False
    if precision.quantization.formats:
        config.quant_config = {"mixed_ops": True}
        return config.get_model({}, device=offload)  # the host's layers put weights where they are made
    return config.get_model({}, device=torch.device("meta"))


def _fill(model: PackedModel, weights: dict[str, Tensor], assign: bool) -> None:
    """Put the tensors themselves in place of the model's empty ones, so that nothing is copied."""
    dit = model.diffusion_model
    dit.load_state_dict(weights, strict=False, assign=assign)
    dit.requires_grad_(False)
    model.device = comfy.model_management.unet_offload_device()


def order_of(name: str, asked: str = "auto") -> str:
    """The order that a checkpoint was trained for, `inverted` or `forward`: its keys do not tell, its name may."""
    if asked != "auto":
        return asked
    return "forward" if re.search(r"(?i)(?<![a-z0-9])f1(?![0-9a-z])", Path(name).stem) else "inverted"


def file_of(patcher: comfy.model_patcher.ModelPatcher) -> Path:
    """The file or folder that a MODEL was loaded from; a clone tells it too."""
    return Path(patcher.get_attachment(FILE))


def order_trained(patcher: comfy.model_patcher.ModelPatcher) -> str | None:
    """The order that a MODEL was loaded as trained for."""
    return patcher.get_attachment(ORDER)


def describe(patcher: comfy.model_patcher.ModelPatcher, name: str) -> str:
    """What was found in a file, in a line."""
    dit = patcher.model.diffusion_model
    lacking = ", ".join(str(kernel) for kernel in LAYER_NAMES if kernel not in dit.spec.kernels)
    return (
        f"{name}: {dit.spec.blocks_said} blocks, {dit.spec.width} wide, kernels "
        f"{', '.join(map(str, dit.spec.kernels))}{f' ({lacking} interpolated)' if lacking else ''}, "
        f"{patcher.get_attachment(PRECISION)}, "
        f"for {patcher.get_attachment(ORDER)} order"
    )
