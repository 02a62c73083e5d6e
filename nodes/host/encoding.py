"""The host's VAE and text encoder as training takes them: what a folder of videos is encoded with.

Dims: c channels, t h w latent grid, l tokens, d width.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from ...framepack.errors import FramePackError
from ...framepack.models.backbones import Backbone
from ...framepack.store.digest import digest
from ...framepack.vae.narrow import NarrowConvolutions
from .interrupt import poll
from .vaes import check_vae


class HostEncoder:
    """Encodes for one model. `spec` states its sizes, `latent_format` is the host's for it.

    Raises FramePackError for a VAE of another model.
    """

    def __init__(self, vae: Any, clip: Any, backbone: Backbone, spec: Any, latent_format: Any):
        check_vae(vae, spec.geometry, latent_format)
        self.vae, self.clip, self.spec, self.latent_format = vae, clip, spec, latent_format
        self.takes = inspect.signature(backbone.dit.forward).parameters.keys()
        ones = torch.ones(1, spec.geometry.channels, 1, 1, 1)
        shift = latent_format.process_out(torch.zeros_like(ones))
        self.scale = (latent_format.process_out(ones) - shift).flatten().tolist()
        self.shift = shift.flatten().tolist()
        parts = {"vae": _told(vae.first_stage_model), "clip": _told(clip.cond_stage_model), "model": backbone.key}
        patched = [held.patcher.patches_uuid if held.patcher.patches else "" for held in (vae, clip)]
        self.name = f"comfyui {digest({**parts, 'patched': list(map(str, patched))})[:16]}"

    def latents(self, pixels: Tensor) -> Tensor:
        """pixels ``3 4n+1 h w`` in [-1, 1] -> latents ``c t h w`` as the model takes them."""
        poll()
        with NarrowConvolutions():
            raw = self.vae.encode((pixels / 2 + 0.5).clamp(0, 1).movedim(0, -1))
        return self.latent_format.process_in(raw)[0].float().cpu()

    def text(self, caption: str) -> dict[str, Tensor]:
        """What the model takes for a caption: word states ``l d``, and pooled text where it takes one.

        Raises FramePackError for a text encoder of another model.
        """
        poll()
        ((words, options),) = self.clip.encode_from_tokens_scheduled(self.clip.tokenize(caption))
        if words.shape[-1] != self.spec.text_dim:
            raise FramePackError(
                f"The text encoder's words are {words.shape[-1]} wide; this model takes {self.spec.text_dim}. Load the "
                "text encoders that belong to the model."
            )
        found = {"context": words, "y": options.get("pooled_output"), "attention_mask": options.get("attention_mask")}
        return {name: v[0].float().cpu() for name, v in found.items() if v is not None and name in self.takes}


def _told(model: nn.Module) -> dict[str, Any]:
    """What tells a model's weights apart without reading them all: shapes, and its norms and biases."""
    held = {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}
    shapes = {name: [str(tensor.dtype), *tensor.shape] for name, tensor in held.items()}
    plain = torch.float32, torch.float16, torch.bfloat16
    return {"shapes": shapes, "values": {n: t for n, t in held.items() if t.ndim == 1 and t.dtype in plain}}
