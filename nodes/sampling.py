"""The model's own noise levels, and the reference's solver, for SectionSampler and for stock samplers."""

from __future__ import annotations

from comfy_api.latest import io

from ..framepack.sampling.sigmas import flow_sigmas, helios_sigmas
from ..framepack.sampling.solvers import SOLVERS
from ..framepack.units import BASE, RELEASED
from . import host
from .types import CATEGORY

LEVELS = {"framepack": flow_sigmas, "helios": helios_sigmas}


class FramePackSigmas(io.ComfyNode):
    """Noise levels shifted by the number of tokens that are generated at once."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="FramePackSigmas",
            display_name="FramePack Sigmas",
            category=CATEGORY,
            description="The noise levels that the model was trained for: shifted by the number of tokens of a "
            "section, at most by 7. SectionSampler uses them by itself; connect them to see or change them.",
            inputs=[
                io.Int.Input("steps", default=25, min=1, max=200, tooltip="Steps; one more level comes out."),
                io.Int.Input("width", default=640, min=16, max=4096, step=16, tooltip="Pixels, as the video."),
                io.Int.Input("height", default=640, min=16, max=4096, step=16, tooltip="Pixels, as the video."),
                io.Int.Input("num_lat_frames", default=9, min=1, max=256, tooltip="Latent frames of a section: g."),
                io.Combo.Input(
                    "levels",
                    options=list(LEVELS),
                    default="framepack",
                    optional=True,
                    tooltip="framepack: from 1, for HunyuanVideo and Wan. helios: from 0.999, for Helios Base.",
                ),
            ],
            outputs=[io.Sigmas.Output(tooltip="For SectionSampler or SamplerCustomAdvanced.")],
        )

    @classmethod
    def check(cls, width: int = RELEASED.pixel_unit, height: int = RELEASED.pixel_unit) -> None:
        """Raises LatentSizeError for a size off the unit."""
        RELEASED.latent_grid(height, width)

    @classmethod
    def execute(
        cls, steps: int, width: int, height: int, num_lat_frames: int, levels: str = "framepack"
    ) -> io.NodeOutput:
        """Compute them."""
        num_tokens = BASE.num_tokens(num_lat_frames, *RELEASED.latent_grid(height, width))
        return io.NodeOutput(LEVELS[levels](steps, num_tokens))


class FramePackSolver(io.ComfyNode):
    """UniPC as the released models use it, or Euler."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="FramePackSolver",
            display_name="FramePack Solver",
            category=CATEGORY,
            description="The solver: UniPC on flow matching as in the released implementation, or Euler.",
            inputs=[
                io.Combo.Input(
                    "solver",
                    options=list(SOLVERS),
                    default="unipc",
                    tooltip="unipc as the released FramePack models use it; helios as Helios does, with its sigmas.",
                ),
            ],
            outputs=[io.Sampler.Output(tooltip="For SectionSampler or SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls, solver: str) -> io.NodeOutput:
        """Make it."""
        return io.NodeOutput(host.sampler_of(SOLVERS[solver]))
