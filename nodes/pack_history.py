"""Reads a schedule, or a preset's name, and draws how it packs history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from comfy_api.latest import io

from ..framepack.pictures.schedule_picture import draw_schedule
from ..framepack.schedule.grammar import Schedule, count_tokens
from ..framepack.schedule.presets import resolve
from ..framepack.schedule.rates import MAX_RATE, schedule_of_rate
from ..framepack.units import RELEASED
from . import host
from .types import CATEGORY, Drawing, ScheduleType, preview

SMALLEST = RELEASED.pixel_unit
DEFAULT = "f1k1_x_g9_f1k1f2k2f16k4_td"


class PackHistory(io.ComfyNode):
    """Sets how history is packed and in which order sections are generated."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="PackHistory",
            display_name="FramePack Pack History",
            category=CATEGORY,
            description="Reads a schedule in the paper's notation and shows how many tokens each group costs.",
            inputs=[
                io.String.Input(
                    "schedule",
                    default=DEFAULT,
                    tooltip="Schedule in the paper's notation: groups of frames with kernels (f16k4), generated frames "
                    "(g9), skip (x), tail (td, ta, tc). Or a name: inverted (FramePack I2V), forward (F1), endpoint, "
                    "geometric, levels.",
                ),
                io.Float.Input(
                    "rate",
                    default=0.0,
                    min=0.0,
                    max=float(MAX_RATE),
                    step=0.125,
                    optional=True,
                    tooltip="Above 0: use a forward schedule whose context costs this many full frames (2.625 is "
                    "2 + 1/2 + 1/8) instead of the schedule above. 0 = off.",
                ),
                io.Int.Input(
                    "width", default=832, min=16, max=4096, step=16, tooltip="Pixels, for the token counts shown."
                ),
                io.Int.Input(
                    "height", default=480, min=16, max=4096, step=16, tooltip="Pixels, for the token counts shown."
                ),
            ],
            outputs=[ScheduleType.Output(display_name="schedule", tooltip="For EndpointPlanner.")],
        )

    @classmethod
    def check(cls, schedule: str = DEFAULT, width: int = SMALLEST, height: int = SMALLEST, rate: float = 0.0) -> None:
        """Raises ScheduleError for a schedule, LatentSizeError for a size off the unit."""
        _read(schedule, rate)
        RELEASED.latent_grid(height, width)

    @classmethod
    def value(cls, schedule: str, rate: float = 0.0, **size: int) -> str:
        """The canonical schedule."""
        return str(_read(schedule, rate))

    @classmethod
    def draw(cls, poll: Callable[[], None], schedule: str, width: int, height: int, rate: float = 0.0) -> Drawing:
        """The schedule's picture, and its tokens."""
        parsed, grid = _read(schedule, rate), RELEASED.latent_grid(height, width)
        tokens = count_tokens(parsed, *grid)
        text = f"{tokens.context} context + {tokens.generated} generated = {tokens.total} tokens"
        return Drawing(draw_schedule(parsed, *grid), text)

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        """Parse and draw."""
        return io.NodeOutput(cls.value(**inputs), ui=preview(*cls.draw(host.poll, **inputs)))


def _read(text: str, rate: float) -> Schedule:
    """The schedule of a rate, where there is one, else of a string or a preset's name. Raises ScheduleError."""
    return schedule_of_rate(rate) if rate else resolve(text)
