"""Images and videos on their way in: the size that fits, and one causal pass through the VAE."""

from __future__ import annotations

from typing import Any

import torch
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
                io.Model.Input(
                    "model", optional=True, tooltip="Needed for Helios: its videos are encoded in clips of 33 frames."
                ),
                _section_length("Latent frames of a clip, as of the plan's sections. Used with Helios only."),
            ],
            outputs=[io.Latent.Output(tooltip="For EndpointPlanner and SectionSampler, as video_latent.")],
        )

    @classmethod
    def execute(cls, images: Tensor, vae: Any, extend: str, **how: Any) -> io.NodeOutput:
        """Trim and encode."""
        if any(side % RELEASED.pixel_unit for side in images.shape[1:3]):
            raise LatentSizeError(
                f"The images' sides must be multiples of {RELEASED.pixel_unit} pixels; got "
                f"{images.shape[2]}x{images.shape[1]}. Fit them with FramePackResolution."
            )
        model, section_length = how.get("model"), how.get("section_length", 9)
        geometry = RELEASED if model is None else host.geometry(model)
        if geometry.sections_are_clips:
            latent, first = _clips(images, vae, extend, geometry.pixel_frames(section_length))
            num = sum(map(geometry.pixel_frames, latent[host.CLIPS]))
            return io.NodeOutput(latent | _sound(how, first, num))
        extra = (images.shape[0] - 1) % RELEASED.temporal
        kept = images[extra:] if extend == "forwards" else images[: images.shape[0] - extra]
        samples = {"samples": _encoded(vae, kept)}
        return io.NodeOutput(samples | _sound(how, extra if extend == "forwards" else 0, len(kept)))


class FramePackStill(io.ComfyNode):
    """An image as the end of a still clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="FramePackStill",
            display_name="FramePack Still",
            category=CATEGORY,
            description="Encodes a clip in which the start image stands still and keeps its last latent, which Helios "
            "sees as the newest frame of its history. Other models do not need it.",
            inputs=[
                io.Image.Input("image", tooltip="The start image in the size of the plan; several for several videos."),
                io.Vae.Input("vae", tooltip="A video VAE, from VAELoader."),
                _section_length("Latent frames of the clip: those of a section. Helios was trained on 9, 33 frames."),
            ],
            outputs=[io.Latent.Output(tooltip="For SectionSampler, as still_latent.")],
        )

    @classmethod
    def execute(cls, image: Tensor, vae: Any, section_length: int = 9) -> io.NodeOutput:
        """Encode each image's clip."""
        num = host.geometry_of(vae).pixel_frames(section_length)
        clips = (_encoded(vae, one[None].expand(num, -1, -1, -1)) for one in image)
        return io.NodeOutput({"samples": torch.cat([clip[:, :, -1:] for clip in clips])})


def _section_length(tooltip: str) -> io.Input:
    return io.Int.Input("section_length", default=9, min=2, max=256, optional=True, tooltip=tooltip)


def _encoded(vae: Any, images: Tensor) -> Tensor:
    """Latents ``1 c t h w`` of images ``t h w c``."""
    with NarrowConvolutions():
        return vae.encode(images[:, :, :, :3])


def _sound(given: dict[str, Any], first: int, num: int) -> dict[str, Any]:
    """What a LATENT holds of the sound of so many frames."""
    return host.sound.of_clip(given.get("audio"), given.get("fps", 30.0), first, num)


def _clips(images: Tensor, vae: Any, extend: str, length: int) -> tuple[dict[str, Any], int]:
    """A LATENT of a video in clips of so many frames, with its first frame's, and where the clips begin.

    Raises LatentSizeError for less than one. What fills no clip is left out, forwards at the beginning.
    """
    num = len(images) // length
    if not num:
        raise LatentSizeError(
            f"A video must have {length} frames or more for this model, one clip; got {len(images)}. Use a longer one."
        )
    begins = len(images) - num * length if extend == "forwards" else 0
    clips = [_encoded(vae, clip) for clip in images[begins : begins + num * length].split(length)]
    first = {host.FIRST: _encoded(vae, images[:1])} if extend == "forwards" else {}
    latent = {"samples": torch.cat(clips, 2), host.CLIPS: [clip.shape[2] for clip in clips], **first}
    return latent, begins
