"""The pack's own step cache."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..framepack.errors import FramePackError
from . import host
from .types import CATEGORY


class FramePackStepCache(io.ComfyNode):
    """Skips the blocks of steps that hardly change anything."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="FramePackStepCache",
            display_name="FramePack Step Cache",
            category=CATEGORY,
            description="Reuses what all but the first block did, where the first block's residual has hardly changed. "
            "Kept apart for the positive and the negative pass, and begun anew at each section.",
            inputs=[
                io.Model.Input("model", tooltip="From LoadFramePackModel."),
                io.Float.Input(
                    "threshold",
                    default=0.1,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Relative change below which a step is skipped; 0 skips none and changes no bit.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model with the cache.")],
        )

    @classmethod
    def execute(cls, model: Any, threshold: float) -> io.NodeOutput:
        """Attach it to a copy."""
        if not host.is_framepack(model):
            raise FramePackError("model is not a FramePack model; connect LoadFramePackModel.")
        return io.NodeOutput(host.with_step_cache(model, threshold))
