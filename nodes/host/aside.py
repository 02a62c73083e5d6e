"""Layers whose outputs are tabulated stay off the device: the host neither moves nor counts them.

Such a layer is the host's own, hidden from its list of modules. It casts and moves its weights where it is used, which
is once for a prompt; its tensors stand in the state dict as before, so that LoRAs, merges and saving find them.
"""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.model_patcher
from torch import Tensor, nn

from ...framepack.models.memo import Store
from ...framepack.models.packed import PackedDiT
from .gguf import HELD

KEY = "framepack_constants"  # of the patcher's attachment and callbacks
PREFIX = "diffusion_model."
# What the host reaches for at a layer to patch its weights; all else about offloading stays hidden from it.
SHOWN = tuple(f"{verb}{name}" for name in ("weight", "bias") for verb in ("", "set_", "convert_"))
SCALES = ("scale_rows", "input_scale")


class Aside(nn.Module):
    """Stands for a host's layer, which it hides."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        layer.comfy_cast_weights = True
        self.__dict__["layer"] = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def __getattr__(self, name: str) -> Any:
        if name in SHOWN or name in SCALES:
            return getattr(self.__dict__["layer"], name)
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in SHOWN or name in SCALES:
            setattr(self.layer, name, value)
        else:
            super().__setattr__(name, value)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The layer's; a quantized one writes more than its parameters."""
        return self.layer.state_dict(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.layer._load_from_state_dict(*args, **kwargs)
        self.layer.requires_grad_(False)


def set_aside(dit: PackedDiT) -> None:
    """Put the tabulated layers of a DiT aside, before it gets its weights."""
    for layer in dit.modulations:
        layer.linear = Aside(layer.linear)


def keep_constants(patcher: comfy.model_patcher.ModelPatcher) -> None:
    """Give a patcher a place for constants, count only what moves to the device, and patch what is aside."""
    store = Store()
    patcher.set_attachments(KEY, store)
    kinds = comfy.model_patcher.CallbacksMP
    patcher.add_callback_with_key(kinds.ON_DETACH, KEY, lambda *_: store.clear())
    aside = layers_aside(patcher.model.diffusion_model)
    if aside:
        size = comfy.model_management.module_size
        patcher.size = size(patcher.model) - sum(map(size, aside.values()))
    # In any case: a clone without dynamic VRAM takes over the callbacks and gets a model whose layers are aside.
    patcher.add_callback_with_key(kinds.ON_LOAD, KEY, patch_aside)


def layers_aside(dit: nn.Module) -> dict[str, Aside]:
    """Those of a DiT by their names."""
    return {name: layer for name, layer in dit.named_modules() if isinstance(layer, Aside)}


def patch_aside(patcher: comfy.model_patcher.ModelPatcher, *_: Any) -> None:
    """Patch what is aside as the host patches what it loads: on the device, kept off it, undone on unloading."""
    for name, layer in layers_aside(patcher.model.diffusion_model).items():
        for kind in ("weight", "bias"):
            key = f"{PREFIX}{name}.{kind}"
            own = kind == "weight" and HELD in layer.layer._parameters  # patched where it is used
            if key in patcher.patches and key not in patcher.backup and not own:
                patcher.patch_weight_to_device(key, device_to=patcher.load_device)
                held = getattr(layer, kind)
                setattr(layer, kind, nn.Parameter(held.to(patcher.offload_device), requires_grad=False))


def weights_of(patcher: comfy.model_patcher.ModelPatcher | None) -> Any:
    """What stands for a patcher's weights as they are; None where they may change within a run."""
    if patcher is None or patcher.hook_patches or any(key.startswith(PREFIX) for key in patcher.object_patches):
        return None
    return patcher.patches_uuid
