"""The pyramid of Helios Mid and Distilled, as a SAMPLER with its noise levels."""

from __future__ import annotations

from comfy_api.latest import io

from ..framepack.errors import FramePackError, quoted
from ..framepack.sampling.pyramid import check_sides
from ..framepack.sampling.staged import Pyramid
from ..framepack.units import RELEASED
from . import host
from .types import CATEGORY

DISTILLED, MID = "distilled", "mid"
STAGES = {DISTILLED: "2, 2, 2", MID: "10, 10, 10"}  # as released


class FramePackPyramid(io.ComfyNode):
    """Sampling from small to large in stages."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="FramePackPyramid",
            display_name="FramePack Pyramid",
            category=CATEGORY,
            description="Samples each section small first, then larger, stage by stage, as Helios Mid and Helios "
            "Distilled were trained. Connect the sampler to FramePack Section Sampler; leave its sigmas free.",
            inputs=[
                io.Combo.Input(
                    "variant",
                    options=list(STAGES),
                    default=DISTILLED,
                    tooltip="distilled: for Helios Distilled, with cfg 1. mid: for Helios Mid, with cfg 5, by "
                    "CFG-Zero*.",
                ),
                io.String.Input(
                    "steps",
                    default=STAGES[DISTILLED],
                    tooltip="Steps of each stage, small to large, separated by commas. Released: 2, 2, 2 (distilled), "
                    "10, 10, 10 (mid). Each stage beyond the first doubles width and height.",
                ),
                io.Boolean.Input(
                    "double_first",
                    default=True,
                    tooltip="Twice the steps in the first section of the plan, which has no history to go by. "
                    "distilled only.",
                ),
                io.Int.Input(
                    "width", default=640, min=16, max=4096, step=64, tooltip="Pixels, a multiple of 64 for 3 stages."
                ),
                io.Int.Input(
                    "height", default=384, min=16, max=4096, step=64, tooltip="Pixels, a multiple of 64 for 3 stages."
                ),
                io.Int.Input("num_lat_frames", default=9, min=1, max=256, tooltip="Latent frames of a section: g."),
            ],
            outputs=[
                io.Sampler.Output(tooltip="For SectionSampler, which takes the noise levels from it."),
                io.Sigmas.Output(tooltip="The noise levels of a section, for SamplerCustomAdvanced."),
            ],
        )

    @classmethod
    def check(cls, steps: str = STAGES[DISTILLED], width: int = 64, height: int = 64) -> None:
        """Raises FramePackError for stages out of bounds, LatentSizeError for a size that they cannot halve."""
        stages = steps_of(steps)
        if width != 64 or height != 64:
            check_sides(height, width, len(stages), RELEASED.spatial)

    @classmethod
    def execute(
        cls, variant: str, steps: str, double_first: bool, width: int, height: int, num_lat_frames: int
    ) -> io.NodeOutput:
        """Make it."""
        distilled = variant == DISTILLED
        solver = Pyramid(steps=steps_of(steps), distilled=distilled, first=2 if distilled and double_first else 1)
        shape = (1, RELEASED.channels, num_lat_frames, *RELEASED.latent_grid(height, width))
        return io.NodeOutput(host.sampler_of(solver), solver.sigmas(shape))


def steps_of(text: str) -> tuple[int, ...]:
    """The steps of each stage. Raises FramePackError."""
    try:
        return Pyramid(steps=tuple(int(part) for part in text.split(","))).steps
    except ValueError:
        raise FramePackError(f"steps must be whole numbers, such as 2, 2, 2; got {quoted(text)}.") from None
