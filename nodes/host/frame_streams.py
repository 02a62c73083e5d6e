"""Streams of frames through the host's VAE: latents go in as they are made, frames come out as they become final.

Dims: b c t h w latents, n frames, h w c pictures in [0, 1].
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import comfy.model_management
import torch
from comfy.ldm.wan.vae import WanVAE
from torch import Tensor

from ...framepack.errors import FramePackError
from ...framepack.vae.narrow import NarrowConvolutions
from ...framepack.vae.tiles import RELEASED, STREAMED, TileStream, longest_grid
from .vaes import geometry_of
from .versions import latents_at_once

log = logging.getLogger(__name__)

AUTO = "auto"
GRIDS = {str(grid): grid for grid in (STREAMED, RELEASED)}
SPARE = 8  # latent frames whose decoding the causal stream asks memory for; it holds a few at a time


class FrameStream(Protocol):
    """Latents ``1 c t h w`` in, frames ``n h w c`` out as soon as they are final."""

    def push(self, latents: Tensor) -> Iterator[Tensor]:
        """The frames that these latents complete."""
        ...

    def flush(self) -> Iterator[Tensor]:
        """The frames that are left at the end of the video."""
        ...

    def set_aside(self) -> None:
        """The stream pauses: leave the device to other models."""


def frame_stream(vae: Any, grid: str = AUTO, whole: int | None = None) -> FrameStream:
    """Through the causal cache (Wan's), by tiles in time (HunyuanVideo's, whose norms span it), or all at once.

    `grid` names the tiles: auto, or one of GRIDS. Under auto, one tile may hold a `whole` video of so many latent
    frames; without it, tiles stay short, so that frames come early and memory does not grow with the video.

    Raises FramePackError for an unknown grid.
    """
    if grid != AUTO and grid not in GRIDS:
        raise FramePackError(f"grid must be {AUTO}, {' or '.join(GRIDS)}; got {grid}.")
    model = vae.first_stage_model
    if isinstance(model, WanVAE):  # Wan 2.1's; 2.2's is another class
        return _Causal(vae)
    if _norms_span_time(model):
        return _Tiles(vae, grid, whole)
    log.info("%s cannot decode as a stream; the whole video is decoded at its end", type(model).__name__)
    return _Whole(vae)


class _Whole(FrameStream):
    """Everything at the end."""

    def __init__(self, vae: Any):
        self.vae, self.latents = vae, []

    def push(self, latents: Tensor) -> Iterator[Tensor]:
        """No frames yet."""
        self.latents.append(latents)
        return iter(())

    def flush(self) -> Iterator[Tensor]:
        """All frames."""
        yield self.vae.decode(torch.cat(self.latents, 2))[0]


class _Tiles(FrameStream):
    """Each tile is a decode of the host's, which asks for the tile's memory and tiles space if that is not available.

    The first latents settle the grid for the whole video.
    """

    def __init__(self, vae: Any, grid: str, whole: int | None):
        self.vae, self.grid, self.whole = vae, grid, whole
        self.stream: TileStream | None = None

    def push(self, latents: Tensor) -> Iterator[Tensor]:
        """The frames of complete tiles."""
        if self.stream is None:
            grid = GRIDS.get(self.grid) or longest_grid(_fits(self.vae, latents.shape), self.whole)
            log.info("decoding in tiles of %s latent frames", grid)
            self.stream = TileStream(self._decode, grid, geometry_of(self.vae))
        return (frames[0].movedim(0, -1) for frames in self.stream.push(latents))

    def flush(self) -> Iterator[Tensor]:
        """The frames of the last tile."""
        return (frames[0].movedim(0, -1) for frames in (self.stream.flush() if self.stream else ()))

    def _decode(self, tile: Tensor) -> Tensor:
        return self.vae.decode(tile).movedim(-1, 1)


def _fits(vae: Any, shape: torch.Size) -> Callable[[int], bool]:
    """Does the host expect a tile of so many of these latents to fit in the memory that it can free?"""
    management, device = comfy.model_management, vae.device
    free = management.get_free_memory(device)
    if not management.is_device_cpu(device):
        free += sum(m.model_loaded_memory() for m in management.current_loaded_models if m.device == device)

    def fits(tile: int) -> bool:
        return vae.memory_used_decode(torch.Size((1, shape[1], tile, *shape[3:])), vae.vae_dtype) <= free

    return fits


class _Causal(FrameStream):
    """Latent after latent through the decoder's own cache: equal to one decode of the whole, up to rounding."""

    def __init__(self, vae: Any):
        self.vae, self.model = vae, vae.first_stage_model
        # One place for each layer that keeps frames, and some to spare.
        self.cache: list[Any] = [None] * len(list(self.model.decoder.modules()))
        self.together = latents_at_once(self.model.decoder)
        self.begun = False
        self.waiting: Tensor | None = None  # a latent that has no second one yet

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
        """The frames of a latent that waits for a second one."""
        last, self.waiting = self.waiting, None
        if last is not None:
            self._load(last)
            yield from self._decoded(last)

    def set_aside(self) -> None:
        """Move the frames that layers keep to where the VAE puts its results."""
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
        shape = torch.Size((*latents.shape[:2], min(latents.shape[2], SPARE), *latents.shape[3:]))
        needed = self.vae.memory_used_decode(shape, self.vae.vae_dtype)
        comfy.model_management.load_models_gpu([self.vae.patcher], memory_required=needed)
        self._move(self.vae.device)

    def _move(self, device: Any) -> None:
        self.cache = [x.to(device) if isinstance(x, Tensor) else x for x in self.cache]


def _norms_span_time(model: Any) -> bool:
    """Has the decoder group norms? In a video VAE they span all frames of a call."""
    decoder = dict(model.named_children()).get("decoder")
    return decoder is not None and any(isinstance(part, torch.nn.GroupNorm) for part in decoder.modules())
