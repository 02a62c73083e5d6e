"""How the page shows inputs: which it keeps for people who ask for more, and names that it offers for a text.

A host that knows neither shows every input, and a text alone.
"""

from __future__ import annotations

from comfy_api.latest import io

from ..framepack.planning.gaps import GAP_NOTES
from ..framepack.schedule.presets import PRESETS

ADVANCED: dict[str, tuple[str, ...]] = {
    "PackHistory": ("rate", "width", "height"),
    "EndpointPlanner": (
        "gap",
        "without_start",
        "section_length",
        "halve_gaps",
        "extend",
        "importance",
        "time_weight",
        "estimate",
        "pinned",
    ),
    "SectionSampler": ("guidance", "cfg_above", "history_guidance", "noise", "keep"),
    "FramePackSaveJob": ("guidance", "cfg_above", "history_guidance"),
    "FramePackLoadModel": ("attention", "order"),
    "LoadFramePackModel": ("attention", "order"),  # the older id
    "FramePackVAEDecode": ("grid",),
    "FramePackVideo": ("grid",),
    "FramePackParallel": ("device", "attention"),
    "FramePackFarm": ("processes", "dtype", "threads"),
    "FramePackTrainLora": ("optimizer", "base_weights", "first_frames"),
}
# A text that has names, each with its value and what it is for. The input stays a text: a list takes no other value.
NAMED: dict[tuple[str, str], list[tuple[str, str, str]]] = {
    ("PackHistory", "schedule"): [(preset.name, preset.text, preset.note) for preset in PRESETS.values()],
    ("EndpointPlanner", "gap"): [(name, name, note) for name, note in GAP_NOTES.items()],
}
ADVANCED_KEY, NAMED_KEY = "advanced", "framepack_named"  # the page's own key, and one that web/js/named_values.js reads


def shown(schema: io.Schema) -> io.Schema:
    """A node's schema with what the page is told of its inputs."""
    for given in schema.inputs:
        if given.id in ADVANCED.get(schema.node_id, ()):
            given.extra_dict |= {ADVANCED_KEY: True}
        if named := NAMED.get((schema.node_id, given.id)):
            given.extra_dict |= {NAMED_KEY: named}
    return schema
