"""LoRAs of every naming."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import host
from .types import CATEGORY


class FramePackLoraLoader(io.ComfyNode):
    """Applies a LoRA and says how much of it matched."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="FramePackLoraLoader",
            display_name="FramePack Load LoRA",
            category=CATEGORY,
            description="Applies a LoRA for FramePack or HunyuanVideo, however its tensors are named, and says how "
            "much of it matched. One that matches nothing is an error.",
            inputs=[
                io.Model.Input("model", tooltip="From FramePack Load Model."),
                io.Combo.Input("lora_name", options=host.list_files("loras"), tooltip="A file in models/loras."),
                io.Float.Input(
                    "strength", default=1.0, min=-20.0, max=20.0, step=0.05, tooltip="1 = as trained, 0 = off."
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model with the LoRA.")],
        )

    @classmethod
    def execute(cls, model: Any, lora_name: str, strength: float) -> io.NodeOutput:
        """Apply it."""
        patched, report = host.apply_lora(model, host.find_file("loras", lora_name), strength)
        return io.NodeOutput(patched, ui={"text": (report,)})
