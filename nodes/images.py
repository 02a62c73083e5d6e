"""Images and videos on their way in: the size that fits, and one causal pass through the VAE."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..framepack.errors import LatentSizeError
from ..framepack.planning.buckets import BASE_SIZE, nearest_bucket
from ..framepack.units import RELEASED
from ..framepack.vae.narrow import NarrowConvolutions
from . import host
from .types import CATEGORY


class FramePackResolution(io.ComfyNode):
    """Fits an image to a size that the released models were trained on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="FramePackResolution",
            display_name="FramePack Resolution",
            category=CATEGORY,
            description="Fits an image to the training size of the nearest shape.",
            inputs=[
                io.Image.Input("image", tooltip="Any size."),
                io.Int.Input(
                    "base",
                    default=BASE_SIZE,
                    min=64,
                    max=4096,
                    step=16,
                    tooltip="Pixels. 640 is the released models' own; less is faster.",
                ),
                io.Combo.Input(
                    "fit",
                    options=["crop", "pad", "stretch"],
                    default="crop",
                    tooltip="crop cuts what sticks out, pad adds black, stretch changes the shape.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="In that size."),
                io.Int.Output(display_name="width", tooltip="For EndpointPlanner."),
                io.Int.Output(display_name="height", tooltip="For EndpointPlanner."),
            ],
        )

    @classmethod
    def execute(cls, image: Tensor, base: int, fit: str) -> io.NodeOutput:
        """Resize it."""
        height, width = nearest_bucket(image.shape[1], image.shape[2], base)
        return io.NodeOutput(host.resize(image, height, width, fit), width, height)


class FramePackVideoEncode(io.ComfyNode):
    """A video to latents in one causal pass."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="FramePackVideoEncode",
            display_name="FramePack Video Encode",
            category=CATEGORY,
            description="Encodes a video that is to be extended, in one causal pass over 4n + 1 of its frames.",
            inputs=[
                io.Image.Input("images", tooltip="The video's frames, from GetVideoComponents."),
                io.Vae.Input("vae", tooltip="A video VAE, from VAELoader."),
                io.Combo.Input(
                    "extend",
                    options=["forwards", "backwards"],
                    default="forwards",
                    tooltip="forwards keeps the last 4n + 1 frames, backwards the first.",
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="The video's sound, from GetVideoComponents. FramePack Video keeps it.",
                ),
                io.Float.Input(
                    "fps",
                    default=30.0,
                    min=1.0,
                    max=240.0,
                    step=1.0,
                    optional=True,
                    tooltip="Frames per second of the video, by which its sound is cut to the frames that are kept.",
                ),
            ],
            outputs=[io.Latent.Output(tooltip="For EndpointPlanner and SectionSampler, as video_latent.")],
        )

    @classmethod
    def execute(cls, images: Tensor, vae: Any, extend: str, audio: Any = None, fps: float = 30.0) -> io.NodeOutput:
        """Trim and encode."""
        if any(side % RELEASED.pixel_unit for side in images.shape[1:3]):
            raise LatentSizeError(
                f"The images' sides must be multiples of {RELEASED.pixel_unit} pixels; got "
                f"{images.shape[2]}x{images.shape[1]}. Fit them with FramePackResolution."
            )
        extra = (images.shape[0] - 1) % RELEASED.temporal
        kept = images[extra:] if extend == "forwards" else images[: images.shape[0] - extra]
        with NarrowConvolutions():
            samples = vae.encode(kept[:, :, :, :3])
        sound = host.sound.of_clip(audio, fps, extra if extend == "forwards" else 0, len(kept))
        return io.NodeOutput({"samples": samples} | sound)
