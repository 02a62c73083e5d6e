"""Wan 2.1, text to video and image to video."""

import re

from ..backbones import Backbone
from .dit import WanDiT
from .names import WAN
from .spec import WAN_1_3B, WAN_14B, WAN_14B_I2V, WanSpec

__all__ = ["BACKBONE", "WAN_14B", "WAN_14B_I2V", "WAN_1_3B", "WanDiT", "WanSpec"]

BACKBONE = Backbone(
    key="wan",
    name="Wan 2.1",
    spec=WanSpec,
    dit=WanDiT,
    own="condition_embedder.time_proj.weight",
    original="time_projection.1.weight",
    base="patch_embedding",
    names=WAN,
    in_fp8=re.compile(r"blocks\.\d+\.(attn\d\.(to|add)_\w+(\.0)?|ffn\.net\..+)\.weight"),
)
