"""Loading the DiT and the built-in text encoder."""

from __future__ import annotations

from comfy_api.latest import io

from . import host
from .types import CATEGORY


class LoadFramePackModel(io.ComfyNode):
    """A FramePack checkpoint, or the built-in small model, as the host's own MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="LoadFramePackModel",
            display_name="Load FramePack Model",
            category=CATEGORY,
            description="Loads a FramePack checkpoint as a MODEL that stock samplers, LoRA and offloading work on.",
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=host.list_files("diffusion_models"),
                    tooltip="A FramePack file in models/diffusion_models; framepack_shapes_dit is built into the pack.",
                )
            ],
            outputs=[io.Model.Output(tooltip="The model.")],
        )

    @classmethod
    def execute(cls, model_name: str) -> io.NodeOutput:
        """Load it."""
        return io.NodeOutput(host.load_model(host.find_file("diffusion_models", model_name)))


class LoadFramePackTextEncoder(io.ComfyNode):
    """The built-in model's small text encoder as CLIP."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="LoadFramePackTextEncoder",
            display_name="Load FramePack Text Encoder (built-in)",
            category=CATEGORY,
            description="The small text encoder of the built-in model. Released models take DualCLIPLoader instead.",
            inputs=[
                io.Combo.Input(
                    "text_encoder_name",
                    options=host.list_files("text_encoders"),
                    tooltip="framepack_shapes_text, which is built into the pack.",
                )
            ],
            outputs=[io.Clip.Output(tooltip="For CLIPTextEncode.")],
        )

    @classmethod
    def execute(cls, text_encoder_name: str) -> io.NodeOutput:
        """Load it."""
        return io.NodeOutput(host.load_text_encoder(host.find_file("text_encoders", text_encoder_name)))
