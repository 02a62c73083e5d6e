"""Resizing as the host does it."""

from __future__ import annotations

import comfy.utils
import torch.nn.functional as F
from torch import Tensor


def resize(images: Tensor, height: int, width: int, fit: str) -> Tensor:
    """images ``t h w c`` to another size: `crop` cuts what sticks out, `pad` adds black, `stretch` does neither."""
    x = images[..., :3].movedim(-1, 1)
    if fit == "pad":
        scale = min(height / x.shape[2], width / x.shape[3])
        inner = max(round(x.shape[2] * scale), 1), max(round(x.shape[3] * scale), 1)
        x = comfy.utils.common_upscale(x, inner[1], inner[0], "lanczos", "disabled")
        top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
        x = F.pad(x, (left, width - inner[1] - left, top, height - inner[0] - top))
    else:
        x = comfy.utils.common_upscale(x, width, height, "lanczos", "center" if fit == "crop" else "disabled")
    return x.movedim(1, -1)
