"""More than one start image: what becomes of a list or a batch of them. Users do not place these nodes.

The host runs each section once for every start image, as it runs any node for every item of a list, and hands the n-th
result to the n-th run of the next section. So only the two ends need nodes: one that makes a list of what comes in, and
one that gathers the videos, because an expanded node can return a list only as a single value.
"""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..framepack.errors import LatentSizeError
from . import host
from .types import CATEGORY


class FramePackStarts(io.ComfyNode):
    """Makes a list of start images: from batches of images, or from latents, repeated ones too."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs: either latents, or pixels with the VAE that encodes each image by itself."""
        return io.Schema(
            node_id="FramePackStarts",
            display_name="FramePack Starts",
            category=f"{CATEGORY}/internal",
            description="Placed by SectionSampler.",
            is_experimental=True,
            is_input_list=True,
            inputs=[
                io.Latent.Input("latents", optional=True, tooltip="Latents of start images."),
                io.Image.Input("pixels", optional=True, tooltip="Start images."),
                io.Vae.Input("vae", optional=True, tooltip="For pixels."),
            ],
            outputs=[io.Latent.Output(is_output_list=True)],
        )

    @classmethod
    def execute(
        cls, latents: list[dict[str, Any]] = (), pixels: list[Tensor] = (), vae: list[Any] = ()
    ) -> io.NodeOutput:
        """One latent for each image."""
        found = [latent for held in latents for latent in images_of(held, "start_latent")]
        for i, batch in enumerate(pixels):
            coder = vae[min(i, len(vae) - 1)]
            host.geometry_of(coder)  # a VAE for images fails in words that say nothing
            found += [coder.encode(image[None, :, :, :3]) for image in batch]
        return io.NodeOutput([{"samples": latent} for latent in found])


class FramePackVideos(io.ComfyNode):
    """Gathers the videos of all start images in one value each."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs; each output is one value, a list of what the host's lists hold."""
        return io.Schema(
            node_id="FramePackVideos",
            display_name="FramePack Videos",
            category=f"{CATEGORY}/internal",
            description="Placed by SectionSampler.",
            is_experimental=True,
            is_input_list=True,
            inputs=[
                io.Latent.Input("latents", tooltip="Latents of whole videos."),
                io.Image.Input("images", optional=True, tooltip="Their frames."),
            ],
            outputs=[io.Latent.Output(), io.Image.Output()],
        )

    @classmethod
    def execute(cls, latents: list[dict[str, Any]], images: list[Tensor] = ()) -> io.NodeOutput:
        """The lists; says what became of the sections."""
        host.say(host.summary(), final=True)
        return io.NodeOutput(list(latents), list(images), ui={"framepack_reuse": [host.summary()]})


def clip_of(latent: dict[str, Any]) -> Tensor:
    """The samples of a LATENT, ``b c t h w``; an image's may have no axis of time."""
    samples: Tensor = latent["samples"]
    return samples if samples.ndim == 5 else samples[:, :, None]


def images_of(latent: dict[str, Any], name: str) -> list[Tensor]:
    """Latents ``1 c 1 h w``, one for each image of a LATENT. Raises LatentSizeError for a clip's."""
    samples = clip_of(latent)
    if samples.shape[2] != 1:
        raise LatentSizeError(
            f"{name} must hold images of one latent frame each; got {samples.shape[2]} latent frames, a clip's. "
            "Connect VAEEncode with the images themselves, or use the clip as video_latent."
        )
    return list(samples.split(1))


def starts_of(dynprompt: Any, link: list[Any]) -> dict[str, Any]:
    """The inputs of FramePackStarts for the link to a start latent.

    VAEEncode takes a batch of images for the frames of one clip, so its images are encoded one by one in its place.
    """
    behind = host.encoded_images(dynprompt, link)
    return behind if behind is not None else {"latents": link}
