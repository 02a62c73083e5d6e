"""Loading the DiT and the built-in text encoder."""

from __future__ import annotations

from comfy_api.latest import io

from ..framepack.checkpoints.gguf_file import SUFFIX, package
from ..framepack.nn.attention import NAMES
from . import host
from .types import CATEGORY


class FramePackLoadModel(io.ComfyNode):
    """A FramePack checkpoint, or the built-in small model, as the host's own MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="FramePackLoadModel",
            display_name="FramePack Load Model",
            category=CATEGORY,
            description="Loads a FramePack checkpoint as a MODEL that stock samplers, LoRA and offloading work on.",
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=host.list_models(),
                    tooltip="A FramePack file (safetensors or GGUF), or a folder of shards with its index, in "
                    "models/diffusion_models. framepack_shapes_dit is built into the pack.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(host.DTYPES),
                    default="default",
                    optional=True,
                    tooltip="default keeps the file's, or what the host prefers if that is smaller. fp8 halves bf16; "
                    "norms, embeddings, modulations and the last layer stay out of it. fp8_e4m3fn_scaled has a scale "
                    "for each row of a matrix and is the most exact of them. Quantized files take default alone.",
                ),
                io.Combo.Input(
                    "attention",
                    options=["host", *NAMES],
                    default="host",
                    optional=True,
                    tooltip="host: what ComfyUI was started with. sdpa: PyTorch's. sage, flash: their packages.",
                ),
                io.Combo.Input(
                    "order",
                    options=["auto", "inverted", "forward"],
                    default="auto",
                    optional=True,
                    tooltip="What the weights were trained for; a file cannot tell. auto goes by the name: F1 is "
                    "forward, all others inverted.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model.")],
        )

    @classmethod
    def check(cls, model_name: str = "") -> None:
        """A GGUF file needs its package. Raises MissingPackageError."""
        if model_name.endswith(SUFFIX):
            package()

    @classmethod
    def execute(
        cls, model_name: str, weight_dtype: str = "default", attention: str = "host", order: str = "auto"
    ) -> io.NodeOutput:
        """Load it."""
        model = host.load_model(host.find_model(model_name), weight_dtype, attention, order)
        return io.NodeOutput(model, ui={"text": (host.describe(model, model_name),)})


class LoadFramePackTextEncoder(io.ComfyNode):
    """The built-in model's small text encoder as CLIP."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="LoadFramePackTextEncoder",
            display_name="FramePack Load Text Encoder (built-in)",
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
