"""The pack's own step cache."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import host
from .types import CATEGORY


class FramePackStepCache(io.ComfyNode):
    """Skips steps whose outcome the steps before tell."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="FramePackStepCache",
            display_name="FramePack Step Cache",
            category=CATEGORY,
            description="Skips the model where its denoised latents move evenly and the steps before tell the next. "
            "Kept apart for the positive and the negative pass, and begun anew at each section.",
            inputs=[
                io.Model.Input("model", tooltip="From FramePack Load Model."),
                io.Float.Input(
                    "threshold",
                    default=0.3,
                    min=0.0,
                    max=100.0,
                    step=0.05,
                    tooltip="Most that the latents may drift over skipped steps, in percent; 0 skips none and changes "
                    "no bit. On the built-in model 1.6 to 1.8 times as fast at 0.2, 1.8 to 2 times at 0.3.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model with the cache.")],
        )

    @classmethod
    def execute(cls, model: Any, threshold: float) -> io.NodeOutput:
        """Attach it to a copy."""
        return io.NodeOutput(host.with_step_cache(model, threshold))
