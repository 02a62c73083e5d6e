"""Latents to images."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import host
from .types import CATEGORY


class FramePackVAEDecode(io.ComfyNode):
    """Decodes a whole video, every latent once."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="FramePackVAEDecode",
            display_name="FramePack VAE Decode",
            category=CATEGORY,
            description="Decodes the latents of SectionSampler to images, one for each frame.",
            inputs=[
                io.Latent.Input("samples", tooltip="The video's latents, from SectionSampler."),
                io.Vae.Input("vae", tooltip="A video VAE, from VAELoader."),
            ],
            outputs=[io.Image.Output(tooltip="4n - 3 frames for n latent frames.")],
        )

    @classmethod
    def execute(cls, samples: dict[str, Any], vae: Any) -> io.NodeOutput:
        """Decode."""
        return io.NodeOutput(host.decoded(vae, samples["samples"]).flatten(0, 1))  # b n h w c -> n h w c


class FramePackVideo(io.ComfyNode):
    """A video that is decoded while it is saved."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="FramePackVideo",
            display_name="FramePack Video",
            category=CATEGORY,
            description="Latents to VIDEO, decoded while SaveVideo writes it, so that memory does not grow with its "
            "length.",
            inputs=[
                io.Latent.Input("samples", tooltip="The video's latents, from SectionSampler."),
                io.Vae.Input("vae", tooltip="A video VAE, from VAELoader."),
                io.Float.Input("fps", default=30.0, min=1.0, max=240.0, step=1.0, tooltip="Frames per second."),
            ],
            outputs=[io.Video.Output(tooltip="For SaveVideo.")],
        )

    @classmethod
    def execute(cls, samples: dict[str, Any], vae: Any, fps: float) -> io.NodeOutput:
        """Nothing is decoded yet."""
        return io.NodeOutput(host.StreamedVideo(vae, samples["samples"], fps))
