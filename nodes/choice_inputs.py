"""The planner's inputs for which history frames a section sees."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..framepack.planning.choice import ESTIMATES, FIRST_STEPS, Estimate
from ..framepack.planning.importance import IMPORTANCE, ByTime
from ..framepack.planning.pins import read_pins
from ..framepack.units import Geometry


def choice_inputs() -> list[io.Input]:
    """How important history frames are, and those that are pinned."""
    return [
        io.Combo.Input(
            "importance",
            options=list(IMPORTANCE),
            default=ByTime.name,
            optional=True,
            tooltip="by_time: the nearest frames get the most tokens. similarity: those most alike to the section. "
            "hybrid: alike and near in time; for videos that return to a place.",
        ),
        io.Float.Input(
            "time_weight",
            default=1.0,
            min=0.0,
            max=1000.0,
            step=0.1,
            optional=True,
            tooltip="For hybrid: how much nearness in time counts against likeness (-1 to 1). 0 = likeness alone.",
        ),
        io.Combo.Input(
            "estimate",
            options=list(ESTIMATES),
            default=FIRST_STEPS,
            optional=True,
            tooltip="What history is compared with: what the section's own first steps show, the nearest section, or "
            "the nearest earlier section with the same prompt. With first steps an edit resamples every later section, "
            "with the others only those whose choice it changes.",
        ),
        io.String.Input(
            "pinned",
            default="",
            multiline=True,
            optional=True,
            tooltip="References that sections always see, one a line: 0-1.2s (that part of the video), 8-10s: 0-1.2s "
            "(only for sections at 8 to 10 s), image NAME as k1 (a FramePackKeyframe, uncompressed).",
        ),
    ]


def choice_of(
    fps: float,
    geometry: Geometry,
    *,
    importance: str = ByTime.name,
    time_weight: float = 1.0,
    estimate: Estimate = FIRST_STEPS,
    pinned: str = "",
    **_: Any,
) -> dict[str, Any]:
    """These inputs as fields of a plan's request. Raises FramePackError for what is pinned."""
    pins = read_pins(pinned, fps, geometry)
    return {"importance": importance, "time_weight": time_weight, "estimate": estimate, "pins": pins}
