"""Latents to frames through the host's VAE, some at a time, in memory that does not grow with the video's length.

Dims: b c t h w latents, n frames, h w c pictures in [0, 1].
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ...framepack.errors import FramePackError, LatentSizeError
from ...framepack.nn.onednn import Convolutions
from ...framepack.units import FRAMES_PER_LATENT, pixel_frames
from ...framepack.vae.tiles import TileStream
from .bar import Bar

log = logging.getLogger(__name__)

SPARE = 8  # latent frames whose decoding is asked memory for: a stream holds a few at a time


def check_latents(vae: Any, latents: Tensor) -> None:
    """Raises LatentSizeError for latents that are no video's, FramePackError for a VAE that does not fit them."""
    vae.throw_exception_if_invalid()
    if latents.ndim != 5 or not latents.shape[2]:
        raise LatentSizeError(
            f"latents {tuple(latents.shape)} came; expected a video's, b c t h w; connect SectionSampler"
        )
    if vae.latent_dim != 3 or vae.temporal_compression_decode() != FRAMES_PER_LATENT:
        raise FramePackError(
            f"the VAE is not a video VAE of {FRAMES_PER_LATENT} frames per latent; load the one that the model was "
            "trained with, HunyuanVideo's or Wan 2.1's"
        )
    if vae.latent_channels != latents.shape[1]:
        raise LatentSizeError(
            f"latents of {latents.shape[1]} channels came, and the VAE decodes {vae.latent_channels}; load the VAE "
            "that the model was trained with"
        )


def decoded(vae: Any, latents: Tensor) -> Tensor:
    """All frames ``b n h w c`` of latents ``b c t h w``; beside them it holds no more than a stream does."""
    check_latents(vae, latents)
    num, factor = pixel_frames(latents.shape[2]), vae.spacial_compression_decode()
    size = (factor * latents.shape[3], factor * latents.shape[4])
    images = torch.empty(len(latents), num, *size, 3, device=vae.output_device)
    for image, latent in zip(images, latents.split(1), strict=True):
        at = 0
        for frames in decode_stream(vae, latent):
            image[at : at + len(frames)] = frames
            at += len(frames)
    return images


def decode_stream(vae: Any, latents: Tensor) -> Iterator[Tensor]:
    """Frames ``n h w c`` of latents ``1 c t h w``, each latent decoded once; shows progress on the node."""
    check_latents(vae, latents)
    bar = Bar(pixel_frames(latents.shape[2]))
    for frames in _pieces(vae, latents):
        bar.update(len(frames))
        yield frames


def _pieces(vae: Any, latents: Tensor) -> Iterator[Tensor]:
    """By the causal cache (Wan's), by tiles in time (HunyuanVideo's, whose norms span it), else at once."""
    model = vae.first_stage_model
    if _is_wan(model):
        yield from _causally(vae, model, latents)
    elif _norms_span_time(model):
        yield from _by_tiles(vae, latents)
    else:
        log.info("the VAE %s is known to stream by no rule; the video is decoded at once", type(model).__name__)
        yield vae.decode(latents)[0]


def _by_tiles(vae: Any, latents: Tensor) -> Iterator[Tensor]:
    """Each tile is a decode of the host's: it asks for a tile's memory, and tiles space where that is not there."""
    stream = TileStream(lambda tile: vae.decode(tile).movedim(-1, 1))
    for frames in stream.push(latents):
        yield frames[0].movedim(0, -1)
    for frames in stream.flush():
        yield frames[0].movedim(0, -1)


@torch.no_grad()
def _causally(vae: Any, model: Any, latents: Tensor) -> Iterator[Tensor]:
    """One latent after another through the decoder's own cache: the numbers of decoding at once, up to rounding."""
    shape = (*latents.shape[:2], min(latents.shape[2], SPARE), *latents.shape[3:])
    needed = vae.memory_used_decode(shape, vae.vae_dtype)
    comfy.model_management.load_models_gpu([vae.patcher], memory_required=needed)
    cache = [None] * len(list(model.decoder.modules()))  # one for each layer that keeps frames, and some to spare
    for i in range(latents.shape[2]):
        latent = latents[:, :, i : i + 1].to(device=vae.device, dtype=vae.vae_dtype)
        with Convolutions():
            out = model.decoder(model.conv2(latent), feat_cache=cache, feat_idx=[0])
        yield vae.process_output(out.to(vae.output_device).float())[0].movedim(0, -1)


def _is_wan(model: Any) -> bool:
    """Wan 2.1's, told by its place in the host and its parts; 2.2's has another decoder."""
    parts = all(hasattr(model, name) for name in ("conv2", "decoder", "temperal_upsample"))
    return type(model).__module__ == "comfy.ldm.wan.vae" and parts


def _norms_span_time(model: Any) -> bool:
    """A decoder with group norms, which in a video VAE run over all frames of a call."""
    decoder = getattr(model, "decoder", None)
    return decoder is not None and any(isinstance(part, torch.nn.GroupNorm) for part in decoder.modules())
