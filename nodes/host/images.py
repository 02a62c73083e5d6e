"""Images as the host has them: resizing, and those behind a link to their latent."""

from __future__ import annotations

from typing import Any

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


def encoded_images(dynprompt: Any, link: list[Any]) -> dict[str, Any] | None:
    """The links `pixels` and `vae` of the stock VAEEncode at a link's other end; None for any other node."""
    node = dynprompt.get_node(link[0])
    return dict(node["inputs"]) if node["class_type"] == "VAEEncode" else None
