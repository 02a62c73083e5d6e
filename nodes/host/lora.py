"""LoRAs onto the native MODEL, through the host's own adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.lora
import comfy.model_patcher

from ...framepack.checkpoints.files import Checkpoint
from ...framepack.checkpoints.lora_check import Lora, check_lora
from ...framepack.checkpoints.model_file import shapes_of
from ...framepack.errors import CheckpointError

PREFIX = "diffusion_model."


def apply_lora(model: comfy.model_patcher.ModelPatcher, path: str, strength: float) -> tuple[Any, str]:
    """A patched copy of a MODEL, and a line on what changed. Raises CheckpointError for a LoRA that does not fit."""
    name, checkpoint = Path(path).name, Checkpoint.open(path)
    shapes = shapes_of(model.model.diffusion_model.spec)
    lora = check_lora(name, checkpoint.tensors(), checkpoint.metadata, shapes)
    targets = {layer: f"{PREFIX}{layer}.weight" for layer in lora.changed}
    patches = comfy.lora.load_lora(dict(lora.tensors), targets, False)
    patched = model.clone()
    applied = set(patched.add_patches(patches, strength)) if strength else set()
    if strength and (lost := sorted(set(patches) - applied)):
        raise CheckpointError(f"{name}: ComfyUI did not take {len(lost)} of its patches, such as {lost[0]}.")
    return patched, report(name, lora, {key.removeprefix(PREFIX).rpartition(".")[0] for key in applied})


def report(name: str, lora: Lora, changed: set[str]) -> str:
    """What a file changed, and what in it changed nothing."""
    text = f"{name}: {len(changed)} {'layer' if len(changed) == 1 else 'layers'} changed"
    if lora.zeros:
        text += f"; {len(lora.zeros)} hold zeros, such as {min(lora.zeros)}"
    if lora.unmatched:
        text += f"; {len(lora.unmatched)} tensors belong to no layer here, such as {lora.unmatched[0]}"
    return text
