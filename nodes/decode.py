"""Latents to images."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import host
from .types import CATEGORY


def _grid_input(auto: str) -> io.Combo.Input:
    """How a VAE whose norms span time, such as HunyuanVideo's, cuts the video into tiles of latent frames."""
    return io.Combo.Input(
        "grid",
        options=[host.AUTO, *host.GRIDS],
        default=host.AUTO,
        optional=True,
        tooltip=f"Length of the VAE's tiles in time, in latent frames. auto: {auto}, as free memory allows. 9 every 7 "
        "or 5 every 3: the same frames on every machine; 5 every 3 is HunyuanVideo's own. Wan's VAE ignores this.",
    )


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
                _grid_input("the whole video or long tiles"),
            ],
            outputs=[
                io.Image.Output(
                    tooltip="All frames: for Wan and HunyuanVideo 4n - 3 of n latents, or those that an exact length "
                    "keeps."
                )
            ],
        )

    @classmethod
    def execute(cls, samples: dict[str, Any], vae: Any, grid: str = host.AUTO) -> io.NodeOutput:
        """Decode."""
        frames = host.decoded(vae, samples["samples"], grid, samples.get(host.CLIPS), kept=samples.get(host.KEPT))
        return io.NodeOutput(frames.flatten(0, 1))  # b n h w c -> n h w c


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
                _grid_input("9 every 7 or 5 every 3"),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="Sound of the video, from its first frame on. Without it an extended video keeps its own.",
                ),
            ],
            outputs=[io.Video.Output(tooltip="For SaveVideo.")],
        )

    @classmethod
    def execute(
        cls, samples: dict[str, Any], vae: Any, fps: float, grid: str = host.AUTO, audio: Any = None
    ) -> io.NodeOutput:
        """Nothing is decoded yet."""
        first, stop = samples.get(host.KEPT) or (0, None)
        own = samples.get(host.sound.AUDIO, {})
        sound = (own.get("audio"), own.get("frame", 0)) if audio is None else (audio, first)
        how = {"clips": samples.get(host.CLIPS), "first": first, "stop": stop, "sound": sound}
        video = host.StreamedVideo(vae, samples["samples"], fps, grid, **how)
        return io.NodeOutput(video)
