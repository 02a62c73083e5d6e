"""Helios in the host: Wan 2.1's latents and text encoder around our DiT."""

from __future__ import annotations

from typing import Any

import comfy.latent_formats
import comfy.model_base
import comfy.supported_models

from ....framepack.models.helios import HeliosDiT, HeliosSpec
from .packed import Hosted, PackedConfig, PackedModel

latent_format = comfy.latent_formats.Wan21


class HostedHelios(Hosted, HeliosDiT):
    """The DiT as the host calls it."""


class HeliosModel(PackedModel, comfy.model_base.WAN21):
    """The host's model around the DiT."""

    HOSTED = HostedHelios

    def __init__(self, model_config: Any, device: Any = None):
        super().__init__(model_config, device)
        self.image_to_video = False


class CONFIG(PackedConfig, comfy.supported_models.WAN21_T2V):
    """The host's description of the model."""

    MODEL = HeliosModel

    def __init__(self, spec: HeliosSpec, latent_format: Any):
        super().__init__({"image_model": "wan2.1", "dim": spec.width})
        self.spec, self.latent_format = spec, latent_format
