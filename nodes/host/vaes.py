"""What a VAE of the host is: its geometry, and whether it fits a model and its latents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...framepack.errors import FramePackError, LatentSizeError
from ...framepack.units import Geometry

SHAPES_VAE = "framepack_shapes_vae.safetensors"
# What decodes the latents of a model, by the host's name for its latent format.
NEEDED = {"HunyuanVideo": "HunyuanVideo's VAE (hunyuan_video_vae_bf16.safetensors)", "Wan21": "Wan 2.1's VAE"}
RELEASED_WAN_WIDTH = 96  # of the decoder's last layers; the built-in VAE is a narrow one

CLIPS = "framepack_clips"  # where a LATENT holds the lengths of the clips that decode on their own, if there are any
FIRST = "framepack_first"  # where a video's LATENT holds the latent of its first frame, encoded on its own
KEPT = "framepack_kept"  # and the decoded frames that make up the video, if its length is exact


def geometry_of(vae: Any) -> Geometry:
    """The geometry of a video VAE's latents. Raises FramePackError for a VAE of images or sound."""
    vae.throw_exception_if_invalid()
    frames = vae.temporal_compression_decode()
    if vae.latent_dim != 3 or not frames:
        raise WrongVAEError(
            f"The wrong VAE is connected: got {_known_as(vae)}. Load a VAE for videos, the model's own."
        )
    return Geometry(spatial=vae.spacial_compression_decode(), temporal=frames, channels=vae.latent_channels)


class WrongVAEError(FramePackError):
    """A VAE that belongs to another model."""


def needed_vae(latent_format: Any) -> str:
    """The VAE of a latent format, in words."""
    return NEEDED.get(type(latent_format).__name__, f"the VAE that the model was trained with ({SHAPES_VAE})")


def _kind(vae: Any) -> str:
    return type(vae.first_stage_model).__name__


def _known_as(vae: Any) -> str:
    """Whose VAE it is, in words."""
    kind, channels = _kind(vae), vae.latent_channels
    if vae.latent_dim == 1:
        return "a VAE for sound"
    if vae.latent_dim == 2:
        return f"a VAE for images, with {channels} channels"
    if kind.startswith("Wan"):
        return f"Wan's VAE, with {channels} channels"
    return f"a VAE for videos ({kind}), with {channels} channels"


def _released_for(vae: Any) -> str | None:
    """The latent format that a released VAE decodes; None for any other VAE."""
    kind = _kind(vae)
    if kind == "WanVAE":
        last = (w for name, w in vae.first_stage_model.named_parameters() if name.endswith("head.0.gamma"))
        wide = all(w.shape[0] >= RELEASED_WAN_WIDTH for w in last)
        return "Wan21" if wide and vae.latent_channels == 16 else None
    engine = kind in ("AutoencodingEngine", "AutoencoderKL")
    return "HunyuanVideo" if engine and vae.latent_dim == 3 and vae.latent_channels == 16 else None


def check_vae(vae: Any, geometry: Geometry, latent_format: Any) -> None:
    """Raises FramePackError for a VAE of another geometry than a model's latents, or of another released model."""
    found, needs = geometry_of(vae), needed_vae(latent_format)
    meant, given = type(latent_format).__name__, _released_for(vae)
    if meant in NEEDED and given not in (None, meant):
        raise WrongVAEError(
            f"The wrong VAE is connected: this model needs {needs}; got {_known_as(vae)}. Load that one."
        )
    for name, text in (("channels", "channels"), ("spatial", "pixels per latent"), ("temporal", "frames per latent")):
        if getattr(found, name) != getattr(geometry, name):
            raise WrongVAEError(
                f"The wrong VAE is connected: this model needs {needs}, with {getattr(geometry, name)} {text}; got "
                f"{_known_as(vae)}: {getattr(found, name)}. Load that one."
            )


def check_latents(vae: Any, latents: Tensor, clips: Sequence[int] | None = None) -> None:
    """Raises LatentSizeError for latents that are no video of this VAE's, or not of these clips."""
    channels = geometry_of(vae).channels
    if latents.ndim != 5 or not latents.shape[2]:
        raise LatentSizeError(
            f"samples must be the latents of a video, b c t h w; got {tuple(latents.shape)}. Connect SectionSampler."
        )
    if latents.shape[1] != channels:
        raise WrongVAEError(
            f"The wrong VAE is connected: the latents have {latents.shape[1]} channels; got {_known_as(vae)}. Load the "
            f"VAE that the model was trained with, one with {latents.shape[1]} channels instead of {channels}."
        )
    if clips is not None and sum(clips) != latents.shape[2]:
        raise LatentSizeError(
            f"samples must have the {sum(clips)} latent frames of its sections; got {latents.shape[2]}. Connect "
            "SectionSampler, and cut the decoded frames instead."
        )
