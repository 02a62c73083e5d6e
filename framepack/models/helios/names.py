"""The names of Helios' tensors: those of its release in diffusers are ours; plain Wan 2.1 has its original ones."""

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
HELIOS = KeyMap(
    layers={name: layer for name, layer in WAN.layers.items() if "img" not in name}
    | {"head.modulation": one("norm_out.scale_shift_table")}
)
