"""Latents to frames through the host's VAE, some at a time, in memory that does not grow with the video's length.

Dims: b c t h w latents, n frames, h w c pictures in [0, 1].
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import chain
from typing import Any, Protocol

import comfy.model_management
import torch
from comfy.ldm.wan.vae import WanVAE
from torch import Tensor

from ...framepack.errors import FramePackError, LatentSizeError
from ...framepack.units import FRAMES_PER_LATENT, pixel_frames
from ...framepack.vae.narrow import NarrowConvolutions
from ...framepack.vae.tiles import TileStream
from .bar import Bar
from .runs import say
from .versions import latents_at_once

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
    bar, stream = Bar(pixel_frames(latents.shape[2])), frame_stream(vae)
    for frames in chain(stream.push(latents), stream.flush()):
        bar.update(len(frames))
        yield frames


class Decoding:
    """A video's frames, decoded while its latents come, a piece after another, each once.

    Whoever has it may go on from where it stands; `after` begins anew for those who stand elsewhere.
    """

    def __init__(self, vae: Any):
        self.vae, self.stream = vae, frame_stream(vae)
        self.latents: list[Tensor] = []
        self.frames: list[Tensor] = []

    @classmethod
    def after(cls, before: Decoding | None, vae: Any, num_lat_frames: int) -> Decoding:
        """One that has had the first latent frames of another: itself where it stands there, else a new one."""
        if before is None:
            return cls(vae)
        latents = torch.cat(before.latents, 2)
        if before.stream is not None and latents.shape[2] == num_lat_frames:
            return before
        before.stream, before.frames = None, []  # its latents are enough for whoever comes back to it
        new = cls(vae)
        new.push(latents[:, :, :num_lat_frames])
        return new

    def push(self, latents: Tensor) -> tuple[int, list[Tensor]]:
        """Latents ``1 c t h w`` that follow -> the number of its first new frame, and new frames ``n h w c``."""
        check_latents(self.vae, latents)
        stream, self.stream = self.stream, None  # after a cancel there is none that could be gone on from
        assert stream is not None, "it has not been finished"
        made = self._made(stream.push(latents))
        stream.set_aside()
        self.latents.append(latents)
        self.stream = stream
        return made

    def finish(self) -> tuple[int, list[Tensor]]:
        """The frames that were left, after which it takes no more."""
        stream, self.stream = self.stream, None
        assert stream is not None, "it is finished once"
        return self._made(stream.flush())

    def take(self) -> Tensor:
        """All frames ``n h w c``, which it then holds no longer; memory holds them once."""
        out, at = self.frames[0].new_empty(sum(map(len, self.frames)), *self.frames[0].shape[1:]), 0
        while self.frames:
            some = self.frames.pop(0)
            out[at : at + len(some)] = some
            at += len(some)
        return out

    def get_ram_usage(self) -> int:
        """Bytes that it holds. The host's name, where its cache is bounded by memory."""
        return sum(x.nbytes for x in (*self.frames, *self.latents))

    def _made(self, stream: Iterator[Tensor]) -> tuple[int, list[Tensor]]:
        """Frames in memory of their own, kept once all are there; says how many, and ends where a run is cancelled."""
        new, num = [], (first := sum(map(len, self.frames)))
        for frames in stream:
            comfy.model_management.throw_exception_if_processing_interrupted()
            new.append(frames.contiguous())
            num += len(frames)
            say(f"{num} frames are decoded")
        say(f"{num} frames are decoded", final=True)
        self.frames += new
        return first, new


class FrameStream(Protocol):
    """Latents ``1 c t h w`` in, frames ``n h w c`` out as soon as they are final."""

    def push(self, latents: Tensor) -> Iterator[Tensor]:
        """The frames that latents complete."""
        ...

    def flush(self) -> Iterator[Tensor]:
        """The frames that are left."""
        ...

    def set_aside(self) -> None:
        """Nothing comes for a while: leave the device to others."""


def frame_stream(vae: Any) -> FrameStream:
    """By the causal cache (Wan's), by tiles in time (HunyuanVideo's, whose norms span it), else at once."""
    model = vae.first_stage_model
    if isinstance(model, WanVAE):  # Wan 2.1's; 2.2's is another class
        return _Causal(vae)
    if _norms_span_time(model):
        return _Tiles(vae)
    log.info("the VAE %s is known to stream by no rule; the video is decoded at once", type(model).__name__)
    return _Whole(vae)


class _Whole(FrameStream):
    """Everything at the end."""

    def __init__(self, vae: Any):
        self.vae, self.latents = vae, []

    def push(self, latents: Tensor) -> Iterator[Tensor]:
        """Kept."""
        self.latents.append(latents)
        return iter(())

    def flush(self) -> Iterator[Tensor]:
        """All frames."""
        yield self.vae.decode(torch.cat(self.latents, 2))[0]


class _Tiles(FrameStream):
    """Each tile is a decode of the host's: it asks for a tile's memory, and tiles space where that is not there."""

    def __init__(self, vae: Any):
        self.stream = TileStream(lambda tile: vae.decode(tile).movedim(-1, 1))

    def push(self, latents: Tensor) -> Iterator[Tensor]:
        """Those of whole tiles."""
        return (frames[0].movedim(0, -1) for frames in self.stream.push(latents))

    def flush(self) -> Iterator[Tensor]:
        """Those of the last tile."""
        return (frames[0].movedim(0, -1) for frames in self.stream.flush())


class _Causal(FrameStream):
    """Latent after latent through the decoder's own cache: the numbers of decoding at once, up to rounding.

    Newer hosts' decoder, told by its `run_up`, keeps no frame from before the last call, so that after the first
    latent it must have two in each; the last may be alone.
    """

    def __init__(self, vae: Any):
        self.vae, self.model = vae, vae.first_stage_model
        # One place for each layer that keeps frames, and some to spare.
        self.cache: list[Any] = [None] * len(list(self.model.decoder.modules()))
        self.together = latents_at_once(self.model.decoder)
        self.begun = False
        self.waiting: Tensor | None = None  # a latent whose pair has not come

    def push(self, latents: Tensor) -> Iterator[Tensor]:
        """One frame for the first latent, four for each other."""
        if self.waiting is not None:
            latents, self.waiting = torch.cat([self.waiting, latents], 2), None
        self._load(latents)
        if not self.begun:
            self.begun = True
            yield from self._decoded(latents[:, :, :1])
            latents = latents[:, :, 1:]
        for some in latents.split(self.together, 2) if latents.shape[2] else ():
            if some.shape[2] < self.together:
                self.waiting = some
            else:
                yield from self._decoded(some)

    def flush(self) -> Iterator[Tensor]:
        """Those of a latent that has waited in vain."""
        last, self.waiting = self.waiting, None
        if last is not None:
            self._load(last)
            yield from self._decoded(last)

    def set_aside(self) -> None:
        """The frames that layers keep wait where the VAE's results lie."""
        self._move(self.vae.output_device)

    @torch.no_grad()
    def _decoded(self, latents: Tensor) -> Iterator[Tensor]:
        vae = self.vae
        with NarrowConvolutions():
            x = self.model.conv2(latents.to(device=vae.device, dtype=vae.vae_dtype))
            made = self.model.decoder(x, feat_cache=self.cache, feat_idx=[0])
        for out in made if isinstance(made, list) else [made]:
            yield vae.process_output(out.to(vae.output_device).float())[0].movedim(0, -1)

    def _load(self, latents: Tensor) -> None:
        shape = (*latents.shape[:2], min(latents.shape[2], SPARE), *latents.shape[3:])
        needed = self.vae.memory_used_decode(shape, self.vae.vae_dtype)
        comfy.model_management.load_models_gpu([self.vae.patcher], memory_required=needed)
        self._move(self.vae.device)

    def _move(self, device: Any) -> None:
        self.cache = [x.to(device) if isinstance(x, Tensor) else x for x in self.cache]


def _norms_span_time(model: Any) -> bool:
    """A decoder with group norms, which in a video VAE run over all frames of a call."""
    decoder = dict(model.named_children()).get("decoder")
    return decoder is not None and any(isinstance(part, torch.nn.GroupNorm) for part in decoder.modules())
