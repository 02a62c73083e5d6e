"""HunyuanVideo in the host."""

from __future__ import annotations

from typing import Any

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.supported_models
import torch
from torch import Tensor

from ....framepack.errors import FramePackError
from ....framepack.models.hunyuan import HunyuanDiT, HunyuanSpec
from .packed import Hosted, PackedConfig, PackedModel

GUIDANCE = 10.0  # what the released models expect; the host's own default for HunyuanVideo is 6

latent_format = comfy.latent_formats.HunyuanVideo


class HostedHunyuan(Hosted, HunyuanDiT):
    """The DiT as the host calls it."""

    INPUTS = ("y", "guidance", "attention_mask", "image")


class HunyuanModel(PackedModel, comfy.model_base.HunyuanVideo):
    """The host's model around the DiT."""

    HOSTED = HostedHunyuan
    VISION = ("last_hidden_state", "sigclip_vision_patch14_384")

    def encode_adm(self, **kwargs: Any) -> Tensor:
        """The pooled text. Raises FramePackError where the conditioning has none."""
        pooled = kwargs.get("pooled_output")
        if pooled is None:
            raise FramePackError("The conditioning has no pooled output; encode the prompt with this model's own CLIP.")
        return pooled

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        """Every backbone's, and this one's guidance."""
        out = super().extra_conds(**kwargs)
        spec = self.diffusion_model.spec
        self.check_width("pooled", out["y"].cond, spec.pooled_dim)
        out.pop("guidance", None)
        if spec.guidance:
            guidance = kwargs.get("guidance", GUIDANCE)
            out["guidance"] = comfy.conds.CONDRegular(torch.FloatTensor([guidance * 1000]))
        return out


class CONFIG(PackedConfig, comfy.supported_models.HunyuanVideo):
    """The host's description of the model."""

    MODEL = HunyuanModel

    def __init__(self, spec: HunyuanSpec, latent_format: Any):
        super().__init__({"image_model": "hunyuan_video"})
        self.spec, self.latent_format = spec, latent_format
