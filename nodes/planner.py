"""A schedule and a length to a plan."""

from __future__ import annotations

from comfy_api.latest import io

from ..framepack.errors import FramePackError
from ..framepack.orders import Gap
from ..framepack.pictures import draw_plan
from ..framepack.schedule import parse
from ..framepack.sections import lat_frames_for, make_plan
from ..framepack.units import latent_grid
from .types import CATEGORY, PlanType, ScheduleType, preview


class EndpointPlanner(io.ComfyNode):
    """Which sections are made, in which order, and what each of them sees."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="EndpointPlanner",
            display_name="Endpoint Planner",
            category=CATEGORY,
            description="Plans a video of any length as a graph of sections.",
            inputs=[
                ScheduleType.Input("schedule", tooltip="From PackHistory."),
                io.Float.Input(
                    "seconds", default=5.0, min=0.1, max=1200.0, step=0.1, tooltip="Length; whole sections are made."
                ),
                io.Float.Input("fps", default=30.0, min=1.0, max=240.0, step=1.0, tooltip="Frames per second."),
                io.Int.Input("width", default=640, min=16, max=4096, step=16, tooltip="Pixels, a multiple of 16."),
                io.Int.Input("height", default=640, min=16, max=4096, step=16, tooltip="Pixels, a multiple of 16."),
                io.Boolean.Input(
                    "start_image",
                    default=True,
                    tooltip="The video begins with an image: connect its latent to SectionSampler's start_latent. "
                    "Without, the first frame is made from the prompt.",
                ),
                io.String.Input(
                    "gap",
                    default="auto",
                    tooltip="How far a skipped stretch seems: auto (the schedule's own), released, pinned, true, "
                    "or capped:N sections.",
                    optional=True,
                ),
            ],
            outputs=[PlanType.Output(display_name="plan", tooltip="For SectionSampler: JSON.")],
        )

    @classmethod
    def validate_inputs(cls, width: int, height: int, gap: str = "auto") -> bool | str:
        """Say what is wrong before anything runs."""
        try:
            latent_grid(height, width)
            if gap != "auto":
                Gap.parse(gap)
        except FramePackError as fault:
            return str(fault)
        return True

    @classmethod
    def execute(
        cls, schedule: str, seconds: float, fps: float, width: int, height: int, start_image: bool, gap: str = "auto"
    ) -> io.NodeOutput:
        """Plan and draw."""
        parsed = parse(schedule)
        plan = make_plan(
            parsed,
            num_lat_frames=lat_frames_for(seconds, fps, parsed),
            start=start_image,
            gap=None if gap == "auto" else gap,
            height=height,
            width=width,
        )
        text = f"{len(plan.sections)} sections, {plan.num_pix_frames} frames, {plan.num_pix_frames / fps:.2f} s"
        return io.NodeOutput(plan.to_json(), ui=preview(draw_plan(plan), text, cls))
