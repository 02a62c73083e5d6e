"""Helios (arXiv 2603.04379): FramePack's packing on Wan-shaped weights."""

import re

from ..backbones import Backbone
from .dit import HeliosDiT
from .names import HELIOS, PACKING
from .spec import HELIOS_14B, HeliosSpec

__all__ = ["BACKBONE", "HELIOS_14B", "HeliosDiT", "HeliosSpec"]

BACKBONE = Backbone(
    key="helios",
    name="Helios",
    spec=HeliosSpec,
    dit=HeliosDiT,
    own="norm_out.scale_shift_table",
    original="",  # the release has our names
    base="patch_embedding",
    names=HELIOS,
    in_fp8=re.compile(r"blocks\.\d+\.(attn\d\.to_\w+(\.0)?|ffn\.net\..+)\.weight"),
    packing=PACKING,
    outside_noise=(0.111, 0.135),
)
