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
    schedule="f1k1_x_f16k4f2k2f1k1_g9",
    solvers={"base": "helios", "mid": "pyramid mid", "distilled": "pyramid distilled"},
)
