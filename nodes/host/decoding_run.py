"""A video that is decoded piece by piece, while other sections are still sampled.

Dims: b c t h w latents, n frames, h w c pictures in [0, 1].
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from .frame_streams import FrameStream, frame_stream
from .runs import say
from .vaes import check_latents, geometry_of


class Decoding:
    """A video's frames so far. Each node of a chain pushes the latents that follow.

    It has moved on once pushed to: `after` gives a node the one that it can continue, or a new one.
    """

    def __init__(self, vae: Any):
        self.vae = vae
        self.stream: FrameStream | None = frame_stream(vae)
        self.latents: list[Tensor] = []
        self.frames: list[Tensor] = []
        self.clip = (0, 0)  # the latent frame and the frame at which the clip in hand begins

    @classmethod
    def after(cls, before: Decoding | None, vae: Any, num_lat_frames: int, *, clips: bool = False) -> Decoding:
        """The decoding of another's first latent frames: itself if it has no more of them, else a new one.

        `clips`: each piece that was pushed to it is a clip of its own.
        """
        if before is None:
            return cls(vae)
        if before.stream is not None and sum(x.shape[2] for x in before.latents) == num_lat_frames:
            return before
        before.stream, before.frames = None, []  # its latents are enough to decode it again
        new, left = cls(vae), num_lat_frames
        for latents in before.latents if clips else [torch.cat(before.latents, 2)]:
            if left:
                new.push(latents[:, :, :left], ends=clips)
                left -= min(latents.shape[2], left)
        return new

    def push(self, latents: Tensor, *, ends: bool) -> dict[int, Tensor]:
        """Decode the next latents ``1 c t h w``, the last of a clip if it `ends` -> new pictures, by latent frame.

        A latent's picture ``h w c`` is the last of its frames. A cancel stops it for good.
        """
        check_latents(self.vae, latents)
        stream, self.stream = self.stream, None
        assert stream is not None, "it was stopped, or its frames were taken"
        new = self._kept(stream, latents, ends)
        pictures = self._pictures(new)
        self.latents.append(latents)
        self.frames += new
        if ends:
            self.clip = sum(x.shape[2] for x in self.latents), sum(map(len, self.frames))
        stream.set_aside()
        self.stream = frame_stream(self.vae) if ends else stream
        return pictures

    def take(self) -> Tensor:
        """All frames ``n h w c``. It lets go of them, so that memory holds them once, and takes no more latents."""
        self.stream = None
        out, at = self.frames[0].new_empty(sum(map(len, self.frames)), *self.frames[0].shape[1:]), 0
        while self.frames:
            some = self.frames.pop(0)
            out[at : at + len(some)] = some
            at += len(some)
        return out

    def get_ram_usage(self) -> int:
        """Bytes that it holds. The host's cache calls this where memory bounds it."""
        return sum(x.nbytes for x in (*self.frames, *self.latents))

    def _kept(self, stream: FrameStream, latents: Tensor, ends: bool) -> list[Tensor]:
        """New frames in memory of their own; shows how many there are."""
        new, num = [], sum(map(len, self.frames))
        for frames in chain(stream.push(latents), stream.flush() if ends else ()):
            comfy.model_management.throw_exception_if_processing_interrupted()
            new.append(frames.contiguous())
            num += len(frames)
            say(f"{num} frames decoded")
        say(f"{num} frames decoded", final=True)
        return new

    def _pictures(self, new: list[Tensor]) -> dict[int, Tensor]:
        """Of the new frames, before they are kept, the last one of each latent frame."""
        latent, first = self.clip
        temporal, at, found = geometry_of(self.vae).temporal, sum(map(len, self.frames)) - first, {}
        for frames in new:
            for i in range(-at % temporal, len(frames), temporal):
                found[latent + (at + i) // temporal] = frames[i]
            at += len(frames)
        return found
