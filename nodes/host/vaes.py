"""What a VAE of the host is: its geometry, and whether it fits a model and its latents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...framepack.errors import FramePackError, LatentSizeError
from ...framepack.units import Geometry

CLIPS = "framepack_clips"  # where a LATENT holds the lengths of the clips that decode on their own, if there are any
KEPT = "framepack_kept"  # and the decoded frames that make up the video, if its length is exact


def geometry_of(vae: Any) -> Geometry:
    """The geometry of a video VAE's latents. Raises FramePackError for a VAE of images or sound."""
    vae.throw_exception_if_invalid()
    frames = vae.temporal_compression_decode()
    if vae.latent_dim != 3 or not frames:
        raise FramePackError(
            f"The VAE must decode videos; got one whose latents have {vae.latent_dim} dimensions. Load the VAE that "
            "the model was trained with."
        )
    return Geometry(spatial=vae.spacial_compression_decode(), temporal=frames, channels=vae.latent_channels)


def check_vae(vae: Any, geometry: Geometry) -> None:
    """Raises FramePackError for a VAE of another geometry than a model's latents."""
    found = geometry_of(vae)
    for name, text in (("channels", "channels"), ("spatial", "pixels per latent"), ("temporal", "frames per latent")):
        if getattr(found, name) != getattr(geometry, name):
            raise LatentSizeError(
                f"The VAE must have {getattr(geometry, name)} {text}, as the model has; got {getattr(found, name)}. "
                "Load the VAE that the model was trained with."
            )


def check_latents(vae: Any, latents: Tensor, clips: Sequence[int] | None = None) -> None:
    """Raises LatentSizeError for latents that are no video of this VAE's, or not of these clips."""
    channels = geometry_of(vae).channels
    if latents.ndim != 5 or not latents.shape[2]:
        raise LatentSizeError(
            f"samples must be the latents of a video, b c t h w; got {tuple(latents.shape)}. Connect SectionSampler."
        )
    if latents.shape[1] != channels:
        raise LatentSizeError(
            f"The VAE must have {latents.shape[1]} channels, as the latents have; got {channels}. Load the VAE that "
            "the model was trained with."
        )
    if clips is not None and sum(clips) != latents.shape[2]:
        raise LatentSizeError(
            f"samples must have the {sum(clips)} latent frames of its sections; got {latents.shape[2]}. Connect "
            "SectionSampler, and cut the decoded frames instead."
        )
