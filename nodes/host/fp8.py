"""The host's layers with float8 weights that have scales; layers without scales are the host's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.float
import comfy.lora
import comfy.model_patcher
import comfy.ops
import torch
import torch.nn.functional as F
from torch import Tensor

from ...framepack.checkpoints.fp8 import SCALE, from_rows


class RowOperations(comfy.ops.manual_cast):
    """The host's casting layers; a linear layer with scales applies them to its output."""

    class Linear(comfy.ops.manual_cast.Linear):
        """The host streams, moves and patches the float8 weight as any other. Scales: one, or one for each row."""

        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **kwargs)
            self.register_parameter(SCALE, None)

        def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any) -> None:
            scale = state_dict.get(f"{prefix}{SCALE}")
            if scale is not None:
                self.scale_rows = torch.nn.Parameter(scale, requires_grad=False)
            super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

        def forward_comfy_cast_weights(self, input: Tensor) -> Tensor:  # noqa: A002 - the host's name
            """input ``... i`` -> ``... o``."""
            if self.scale_rows is None:
                return super().forward_comfy_cast_weights(input)
            functions = self.weight_function
            weight, bias, stream = cast_unpatched(self, input)
            if functions or input.dtype == torch.float16:  # whose range the products of unscaled weights may leave
                out = F.linear(input, patched(self.convert_weight(weight), functions).to(input), bias)
            else:
                out, scale = F.linear(input, weight), self.scale_rows.view(-1).to(input.device)
                out = out.mul_(scale) if bias is None else torch.addcmul(bias, out, scale, out=out)
            comfy.ops.uncast_bias_weight(self, weight, bias, stream)
            return out

        def convert_weight(self, weight: Tensor, inplace: bool = False, **_: Any) -> Tensor:
            """What a patch is added to: the weight itself, in float32."""
            return weight if self.scale_rows is None else from_rows(weight, self.scale_rows)

        def set_weight(
            self, weight: Tensor, inplace_update: bool = False, seed: Any = None, return_weight: bool = False, **_: Any
        ) -> Tensor | None:
            """A patched weight under its scales; what a patch adds beyond the format's range is cut off."""
            if self.scale_rows is not None:
                top = torch.finfo(self.weight.dtype).max
                weight = (weight / self.scale_rows.to(weight)).clamp(-top, top)
            weight = comfy.float.stochastic_rounding(weight, self.weight.dtype, seed=seed)
            if return_weight:
                return weight
            if inplace_update:
                self.weight.data.copy_(weight)
            else:
                self.weight = torch.nn.Parameter(weight, requires_grad=False)
            return None


def cast_unpatched(layer: Any, like: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor | None, Any]:
    """A layer's weight, in `dtype` or that of an input, without its patches; its bias with them; and the host's stream.

    The host adds patches to a weight as it is held, which is not yet the weight that a patch is made for.
    """
    functions, layer.weight_function = layer.weight_function, []
    try:
        return comfy.ops.cast_bias_weight(
            layer, dtype=dtype or like.dtype, device=like.device, bias_dtype=like.dtype, offloadable=True
        )
    finally:
        layer.weight_function = functions


def patched(weight: Tensor, functions: list[Callable[[Tensor], Tensor]]) -> Tensor:
    """A weight with what the host would add while it streams the layer."""
    done = set()
    for function in functions:
        if isinstance(function, comfy.model_patcher.LowVramPatch):  # called, some hosts convert the weight once more
            patches = function.patches[function.key]
            if id(patches) in done:  # the host adds it anew where it takes the layer off the device
                continue
            done.add(id(patches))
            weight = comfy.lora.calculate_weight(patches, weight, function.key, intermediate_dtype=weight.dtype)
        else:
            weight = function(weight)
    return weight
