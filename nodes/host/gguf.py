"""The host's layers with a matrix in GGUF's blocks, which is dequantized where it is used, on the device.

The blocks are what the host moves, streams and counts. A LoRA is added to the dequantized values at every use, so the
blocks stay as they are: the host finds no `weight` among a layer's parameters that it could patch for good.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import comfy.model_patcher
import comfy.ops
import torch
import torch.nn.functional as F
from comfy.model_patcher import LowVramPatch
from torch import Tensor, nn

from ...framepack.checkpoints.gguf_blocks import dequantized
from ...framepack.errors import FramePackError
from .fp8 import cast_unpatched, patched

HELD, KIND = "blocks", "blocks_kind"  # a layer's tensors in its state dict: bytes ``rows bytes``, and its type's name


class GGUFOperations(comfy.ops.manual_cast):
    """The host's casting layers; a linear layer may hold blocks."""

    class Linear(comfy.ops.manual_cast.Linear):
        """With blocks, or the host's own where it has none."""

        kind: str | None = None

        def __getattr__(self, name: str) -> Any:
            return super().__getattr__(HELD if name == "weight" and self.kind else name)

        def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
            if f"{prefix}{HELD}" in state_dict:
                del self.weight
                self.kind = state_dict.pop(f"{prefix}{KIND}")
                self.register_parameter(HELD, nn.Parameter(state_dict[f"{prefix}{HELD}"], requires_grad=False))
                self.convert_weight, self.set_weight = self._values, self._refuse  # by which the host patches weights
            super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

        def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
            super()._save_to_state_dict(destination, prefix, keep_vars)
            if self.kind:  # under the name by which patches know it
                destination[f"{prefix}weight"] = destination.pop(f"{prefix}{HELD}")

        def forward_comfy_cast_weights(self, input: Tensor) -> Tensor:  # noqa: A002 - the host's name
            """input ``... i`` -> ``... o``."""
            if not self.kind:
                return super().forward_comfy_cast_weights(input)
            blocks, bias, stream = cast_unpatched(self, input, torch.uint8)
            weight = dequantized(blocks, self.kind, input.dtype)
            out = F.linear(input, patched(weight, self.weight_function), bias)
            comfy.ops.uncast_bias_weight(self, blocks, bias, stream)
            return out

        def _values(self, weight: Tensor, inplace: bool = False, **_: Any) -> Tensor:
            """What a merge takes: the values, in float32. The host gives the blocks' bytes as numbers."""
            return dequantized(weight.to(torch.uint8), self.kind or "")

        def _refuse(self, *_: Any, **__: Any) -> None:
            """Blocks cannot take values back."""
            raise FramePackError(
                "A GGUF model cannot be patched for good, as hooks and ModelSave do. Use Load FramePack LoRA, or "
                "convert it first: python -m framepack convert SOURCE.gguf TARGET.safetensors."
            )


def layers_of(dit: nn.Module) -> Iterable[tuple[str, Any]]:
    """The layers with blocks, by name; those that are hidden from the host, too."""
    for name, module in dit.named_modules():
        layer = module.__dict__.get("layer", module)
        if isinstance(layer, GGUFOperations.Linear) and layer.kind:
            yield name, layer


def patch_blocks(patcher: comfy.model_patcher.ModelPatcher, *_: Any) -> None:
    """Give every layer with blocks its patches, whether it is resident or streamed; called when the host has loaded."""
    for name, layer in layers_of(patcher.model.diffusion_model):
        key = f"diffusion_model.{name}.weight"
        layer.weight_function = [f for f in layer.weight_function if not isinstance(f, LowVramPatch)]
        if key in patcher.patches:
            layer.weight_function.append(LowVramPatch(key, patcher.patches))
