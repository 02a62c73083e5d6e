"""The host's layers with float8 weights that have a scale for each row; layers without scales are the host's own."""

from __future__ import annotations

from typing import Any

import comfy.float
import comfy.ops
import torch
import torch.nn.functional as F
from torch import Tensor

from ...framepack.checkpoints.fp8 import SCALE


class RowOperations(comfy.ops.manual_cast):
    """The host's casting layers; a linear layer with scales applies them to its output."""

    class Linear(comfy.ops.manual_cast.Linear):
        """The host streams, moves and patches the float8 weight as any other."""

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
            weight, bias, stream = comfy.ops.cast_bias_weight(self, input, offloadable=True)
            if input.dtype == torch.float16:  # whose range the products of unscaled weights may leave
                out = F.linear(input, self.convert_weight(weight).to(input), bias)
            else:
                out, scale = F.linear(input, weight), self.scale_rows.view(-1).to(input)
                out = out.mul_(scale) if bias is None else torch.addcmul(bias, out, scale)
            comfy.ops.uncast_bias_weight(self, weight, bias, stream)
            return out

        def convert_weight(self, weight: Tensor, inplace: bool = False, **_: Any) -> Tensor:
            """What a patch is added to: the weight itself."""
            if self.scale_rows is None:
                return weight
            return weight.float() * self.scale_rows.to(weight.device)

        def set_weight(
            self, weight: Tensor, inplace_update: bool = False, seed: Any = None, return_weight: bool = False, **_: Any
        ) -> Tensor | None:
            """A patched weight under the row's scale; a patch of more than the row's own size is cut off."""
            if self.scale_rows is not None:
                weight = weight / self.scale_rows.to(weight)
            weight = comfy.float.stochastic_rounding(weight, self.weight.dtype, seed=seed)
            if return_weight:
                return weight
            if inplace_update:
                self.weight.data.copy_(weight)
            else:
                self.weight = torch.nn.Parameter(weight, requires_grad=False)
            return None
