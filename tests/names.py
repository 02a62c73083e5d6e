"""The 30 names of the paper's Table 1: ten histories, each in three orders."""

from __future__ import annotations

_HISTORIES = (
    ("td", "f16k4f2k2f1k1", 9),
    ("td", "f16k4f2k2f1k1", 4),
    ("td", "f16k4f2k2f1k1", 1),
    ("ta", "f16k4f2k2f1k1", 9),
    ("tc", "f16k4f2k2f1k1", 9),
    ("td", "f16k4f4k2f1k1", 9),
    ("td", "f8k8f4k4f2k2f1k1", 9),
    ("td", "f64k8f16k4f4k2f1k1", 9),
    ("td", "f512k8f64k4f8k2f1k1", 9),
    ("td", "f512k16f64k8f8k2f1k1", 9),
)


def _mirrored(groups: str) -> str:
    return "".join(reversed(["f" + part for part in groups.split("f")[1:]]))


VANILLA = tuple(f"{tail}_{groups}_g{g}" for tail, groups, g in _HISTORIES)
ENDPOINT = tuple(f"{name}_x_f1k1" for name in VANILLA)
INVERTED = tuple(f"f1k1_x_g{g}_{_mirrored(groups)}_{tail}" for tail, groups, g in _HISTORIES)
TABLE_1 = VANILLA + ENDPOINT + INVERTED
