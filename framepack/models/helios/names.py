"""The names of Helios' tensors: the release has ours; a plain Wan 2.1 that is to become a Helios has others."""

from __future__ import annotations

from ...units import BASE, Kernel
from ..names import KeyMap, one
from ..wan.names import WAN

PACKING = {
    BASE: "patch_short",
    Kernel.short(2): "patch_mid",
    Kernel.short(4): "patch_long",
    Kernel.short(8): "patch_longest",  # not released
}
_LAYERS = {name: layer for name, layer in WAN.layers.items() if "img" not in name}
_TABLE = one("norm_out.scale_shift_table")
HELIOS = KeyMap(  # of plain Wan 2.1, under its original names and those of diffusers
    layers=_LAYERS
    | {name: layer for layer in _LAYERS.values() for name in layer.names}
    | {"head.modulation": _TABLE, "scale_shift_table": _TABLE}
)
