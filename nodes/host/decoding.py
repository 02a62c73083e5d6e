"""Latents to frames through the host's VAE: a whole video at once, or piece by piece as sections finish.

Dims: b c t h w latents, n frames, h w c pictures in [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ...framepack.errors import FramePackError, LatentSizeError
from ...framepack.units import RELEASED
from .bar import Bar
from .frame_streams import AUTO, frame_stream
from .runs import say


def check_channels(vae: Any, channels: int) -> None:
    """Raises LatentSizeError for a VAE whose latents have other channels than the model's."""
    if vae.latent_channels != channels:
        raise LatentSizeError(
            f"The VAE's latents must have {channels} channels, as the model's have; got {vae.latent_channels}. Load "
            "the VAE that the model was trained with."
        )


def check_latents(vae: Any, latents: Tensor) -> None:
    """Raises LatentSizeError for latents that are no video's, FramePackError for a VAE that does not fit them."""
    vae.throw_exception_if_invalid()
    if latents.ndim != 5 or not latents.shape[2]:
        raise LatentSizeError(
            f"samples must be the latents of a video, b c t h w; got {tuple(latents.shape)}. Connect SectionSampler."
        )
    factor = vae.temporal_compression_decode()
    if vae.latent_dim != 3 or factor != RELEASED.temporal:
        raise FramePackError(
            f"The VAE must make {RELEASED.temporal} frames per latent; got {factor or 1}. Load the VAE "
            "that the model was trained with, HunyuanVideo's or Wan 2.1's."
        )
    check_channels(vae, latents.shape[1])


def decoded(vae: Any, latents: Tensor, grid: str = AUTO) -> Tensor:
    """All frames ``b n h w c`` of latents ``b c t h w``. Under auto, one tile holds the whole video if that fits."""
    check_latents(vae, latents)
    num, factor = RELEASED.pixel_frames(latents.shape[2]), vae.spacial_compression_decode()
    size = (factor * latents.shape[3], factor * latents.shape[4])
    images = torch.empty(len(latents), num, *size, 3, device=vae.output_device)
    for image, latent in zip(images, latents.split(1), strict=True):
        at = 0
        for frames in decode_stream(vae, latent, grid, whole=True):
            image[at : at + len(frames)] = frames
            at += len(frames)
    return images


def decode_stream(vae: Any, latents: Tensor, grid: str = AUTO, whole: bool = False) -> Iterator[Tensor]:
    """Frames ``n h w c`` of latents ``1 c t h w``; shows progress on the node.

    Memory stays that of short tiles, unless `whole` allows one tile over the whole video.
    """
    check_latents(vae, latents)
    bar = Bar(RELEASED.pixel_frames(latents.shape[2]))
    stream = frame_stream(vae, grid, latents.shape[2] if whole else None)
    for frames in chain(stream.push(latents), stream.flush()):
        bar.update(len(frames))
        yield frames


class Decoding:
    """A video's frames, decoded piece by piece while sections are still sampled.

    It has moved on once pushed to: `after` gives a node the one it can continue, or a new one.
    """

    def __init__(self, vae: Any):
        self.vae, self.stream = vae, frame_stream(vae)
        self.latents: list[Tensor] = []
        self.frames: list[Tensor] = []

    @classmethod
    def after(cls, before: Decoding | None, vae: Any, num_lat_frames: int) -> Decoding:
        """The decoding of the first latent frames of another: itself if it has no more of them, else a new one."""
        if before is None:
            return cls(vae)
        latents = torch.cat(before.latents, 2)
        if before.stream is not None and latents.shape[2] == num_lat_frames:
            return before
        before.stream, before.frames = None, []  # its latents are enough to decode it again
        new = cls(vae)
        new.push(latents[:, :, :num_lat_frames])
        return new

    def push(self, latents: Tensor) -> tuple[int, list[Tensor]]:
        """The next latents ``1 c t h w`` -> the number of the first new frame, and the new frames ``n h w c``."""
        check_latents(self.vae, latents)
        stream, self.stream = self.stream, None  # after a cancel there is none to continue
        assert stream is not None, "it has not been finished"
        made = self._made(stream.push(latents))
        stream.set_aside()
        self.latents.append(latents)
        self.stream = stream
        return made

    def finish(self) -> tuple[int, list[Tensor]]:
        """The number of the first frame that is left, and the frames; it takes no latents after that."""
        stream, self.stream = self.stream, None
        assert stream is not None, "it is finished once"
        return self._made(stream.flush())

    def take(self) -> Tensor:
        """All frames ``n h w c``. It lets go of them, so that memory holds them once."""
        out, at = self.frames[0].new_empty(sum(map(len, self.frames)), *self.frames[0].shape[1:]), 0
        while self.frames:
            some = self.frames.pop(0)
            out[at : at + len(some)] = some
            at += len(some)
        return out

    def get_ram_usage(self) -> int:
        """Bytes that it holds. The host's cache calls this where memory bounds it."""
        return sum(x.nbytes for x in (*self.frames, *self.latents))

    def _made(self, stream: Iterator[Tensor]) -> tuple[int, list[Tensor]]:
        """Keeps the frames, in memory of their own, once all are made; shows how many. A cancel stops it."""
        new, num = [], (first := sum(map(len, self.frames)))
        for frames in stream:
            comfy.model_management.throw_exception_if_processing_interrupted()
            new.append(frames.contiguous())
            num += len(frames)
            say(f"{num} frames decoded")
        say(f"{num} frames decoded", final=True)
        self.frames += new
        return first, new
