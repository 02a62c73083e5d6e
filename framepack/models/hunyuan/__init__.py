"""HunyuanVideo, the backbone of the released FramePack models."""

import re

from ...units import TRAINED_POSITIONS
from ..backbones import Backbone
from .dit import HunyuanDiT
from .names import HUNYUAN
from .spec import HunyuanSpec

__all__ = ["BACKBONE", "HunyuanDiT", "HunyuanSpec"]

BACKBONE = Backbone(
    key="hunyuan",
    name="HunyuanVideo",
    spec=HunyuanSpec,
    dit=HunyuanDiT,
    own="x_embedder.proj.weight",
    original="img_in.proj.weight",
    base="x_embedder.proj",
    positions=TRAINED_POSITIONS,
    names=HUNYUAN,
    in_fp8=re.compile(
        r"(single_)?transformer_blocks\.\d+\.(attn\.(to|add)_\w+(\.0)?|ff\w*\.net\..+|proj_(mlp|out))\.weight"
    ),
)
