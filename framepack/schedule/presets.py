"""Schedules with a name: the five structures of the paper's figure 1, and those of the released weights."""

from __future__ import annotations

from dataclasses import dataclass

from .grammar import Schedule, parse


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A schedule string with a name and a line on what it is for."""

    name: str
    text: str
    note: str


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            name="inverted",
            text="f1k1_x_g9_f1k1f2k2f16k4_td",
            note="FramePack I2V: from the end of the video towards its start image",
        ),
        Preset(
            name="forward",
            text="f1k1_x_f16k4f2k2f1k1_g9",
            note="FramePack F1: in temporal order, with the start image always in view (gap: pinned)",
        ),
        Preset(
            name="endpoint",
            text="td_f16k4f2k2f1k1_g9_x_f1k1",
            note="beginning and ending first, then what lies between",
        ),
        Preset(
            name="geometric",
            text="td_f1k1h16w16f1k1h8w16f1k1h8w8f1k1h4w8f1k1h4w4f1k1h2w4f1k1_g9",
            note="figure 1 (a): each older frame half as long as the next",
        ),
        Preset(
            name="levels",
            text="td_f3k1h16w16f3k1h8w8f3k1h4w4f3k1_g9",
            note="figure 1 (b): powers of 4, each level three times",
        ),
        Preset(
            name="temporal",
            text="td_f16k16h2w2f8k8h2w2f4k4h2w2f2k2h2w2f1k1_g9",
            note="figure 1 (c): compressed in time alone, by powers of 2",
        ),
        Preset(
            name="oldest",
            text="td_f1k1_x_f8k8f4k4f2k2f1k1_g9",
            note="figure 1 (d): the oldest frame at full length",
        ),
        Preset(
            name="both-ends",
            text="td_f1k1f2k2_x_f16k4f2k2f1k1_g9",
            note="figure 1 (e): beginning and end matter, the middle is compressed",
        ),
    )
}

# The paper's Table 1: ten histories, each in three orders.
_HISTORIES = (
    *(("td", "f16k4 f2k2 f1k1", g) for g in (9, 4, 1)),
    *((tail, "f16k4 f2k2 f1k1", 9) for tail in ("ta", "tc")),
    ("td", "f16k4 f4k2 f1k1", 9),
    ("td", "f8k8 f4k4 f2k2 f1k1", 9),
    ("td", "f64k8 f16k4 f4k2 f1k1", 9),
    ("td", "f512k8 f64k4 f8k2 f1k1", 9),
    ("td", "f512k16 f64k8 f8k2 f1k1", 9),
)
TABLE_1 = (
    *(f"{tail}_{groups.replace(' ', '')}_g{g}" for tail, groups, g in _HISTORIES),
    *(f"{tail}_{groups.replace(' ', '')}_g{g}_x_f1k1" for tail, groups, g in _HISTORIES),
    *(f"f1k1_x_g{g}_{''.join(reversed(groups.split()))}_{tail}" for tail, groups, g in _HISTORIES),
)


def resolve(text: str) -> Schedule:
    """A schedule from a preset's name or a schedule string. Raises ScheduleError."""
    preset = PRESETS.get(text.strip())
    return parse(preset.text if preset else text)
