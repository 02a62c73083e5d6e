"""LoRAs onto the native MODEL, through the host's own adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.lora
import comfy.model_patcher
from torch import Tensor

from ...framepack.checkpoints.files import Checkpoint
from ...framepack.checkpoints.lora import Matched, match
from ...framepack.errors import CheckpointError


def apply_lora(model: comfy.model_patcher.ModelPatcher, path: str, strength: float) -> tuple[Any, str]:
    """A patched copy of a MODEL, and a line on what matched. Raises CheckpointError where nothing did."""
    name = Path(path).name
    shapes = {k: tuple(v.shape) for k, v in model.model.diffusion_model.state_dict().items()}
    modules = {key.removesuffix(".weight"): shape for key, shape in shapes.items() if key.endswith(".weight")}
    found = match(Checkpoint.open(path).tensors(), modules)
    if not found.modules:
        shown = ", ".join(found.unmatched[:3])
        raise CheckpointError(
            f"{name}: none of its {len(found.unmatched)} tensors belongs to this model ({shown} ...); expected a LoRA "
            "for FramePack or HunyuanVideo."
        )
    _check(name, found.tensors, modules)
    patches = comfy.lora.load_lora(found.tensors, {m: f"diffusion_model.{m}.weight" for m in found.modules}, False)
    patched = model.clone()
    applied = set(patched.add_patches(patches, strength))
    if lost := sorted(set(patches) - applied):
        raise CheckpointError(f"{name}: the host did not take {len(lost)} patches, such as {lost[0]}.")
    return patched, report(name, found)


def report(name: str, found: Matched) -> str:
    """How much of a file was used."""
    text = f"{name}: {len(found.modules)} layers changed"
    if found.unmatched:
        text += f"; {len(found.unmatched)} tensors belong to no layer here, such as {found.unmatched[0]}"
    return text


def _check(name: str, tensors: dict[str, Tensor], modules: dict[str, tuple[int, ...]]) -> None:
    """Plain A and B matrices must have the layer's rows and columns."""
    for key, tensor in tensors.items():
        module, _, part = key.partition(".lora_")
        if part not in ("up.weight", "down.weight"):
            continue
        shape = modules[module]
        came, expected = (tensor.shape[0], shape[0]) if part == "up.weight" else (tensor[0].numel(), _columns(shape))
        if came != expected:
            raise CheckpointError(
                f"{name}: {key} fits {came} channels; {module} has {expected}, so it is for another model."
            )


def _columns(shape: tuple[int, ...]) -> int:
    columns = 1
    for n in shape[1:]:
        columns *= n
    return columns
