"""Wan 2.1 in the host."""

from __future__ import annotations

from typing import Any

import comfy.latent_formats
import comfy.model_base
import comfy.supported_models

from ....framepack.models.wan import WanDiT, WanSpec
from .packed import Hosted, PackedConfig, PackedModel

latent_format = comfy.latent_formats.Wan21


class HostedWan(Hosted, WanDiT):
    """The DiT as the host calls it."""

    INPUTS = ("image",)


class WanModel(PackedModel, comfy.model_base.WAN21):
    """The host's model around the DiT."""

    HOSTED = HostedWan
    VISION = ("penultimate_hidden_states", "clip_vision_h")

    def __init__(self, model_config: Any, device: Any = None):
        super().__init__(model_config, device)
        self.image_to_video = model_config.spec.image_dim is not None

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        """Every backbone's; an image that stock nodes put into the conditioning counts too."""
        out = super().extra_conds(**kwargs)
        seen = out.pop("clip_fea", None)
        return out if seen is None else {"image": seen} | out


class CONFIG(PackedConfig, comfy.supported_models.WAN21_T2V):
    """The host's description of the model."""

    MODEL = WanModel

    def __init__(self, spec: WanSpec, latent_format: Any):
        super().__init__({"image_model": "wan2.1", "dim": spec.width})
        self.spec, self.latent_format = spec, latent_format
