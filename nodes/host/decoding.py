"""Latents to frames through the host's VAE.

Dims: b c t h w latents, n frames, h w c pictures in [0, 1]. `clips` are the lengths, in latent frames, of a video's
sections if each decodes on its own; without them the video is one clip.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from .bar import Bar
from .frame_streams import AUTO, frame_stream
from .vaes import check_latents, geometry_of


def num_frames(vae: Any, latents: Tensor, clips: Sequence[int] | None = None) -> int:
    """Pixel frames of latents ``b c t h w``."""
    return sum(map(geometry_of(vae).pixel_frames, clips or [latents.shape[2]]))


def decoded(
    vae: Any,
    latents: Tensor,
    grid: str = AUTO,
    clips: Sequence[int] | None = None,
    *,
    kept: Sequence[int] | None = None,
) -> Tensor:
    """All frames ``b n h w c`` of latents ``b c t h w``, or those from kept[0] up to kept[1].

    Under auto, one tile holds a whole clip if that fits.
    """
    check_latents(vae, latents, clips)
    factor = geometry_of(vae).spatial
    size = (factor * latents.shape[3], factor * latents.shape[4])
    first, stop = kept or (0, num_frames(vae, latents, clips))
    images = torch.empty(len(latents), stop - first, *size, 3, device=vae.output_device)
    for image, latent in zip(images, latents.split(1), strict=True):
        at = 0
        for frames in within(decode_stream(vae, latent, grid, clips, whole=True), first, stop):
            image[at : at + len(frames)] = frames
            at += len(frames)
    return images


def within(stream: Iterable[Tensor], first: int, stop: int) -> Iterator[Tensor]:
    """The frames ``n h w c`` of a stream from `first` up to `stop`; it is read no further."""
    at = 0
    for frames in stream:
        wanted = frames[max(first - at, 0) : max(stop - at, 0)]
        if len(wanted):
            yield wanted
        at += len(frames)
        if at >= stop:
            return


def decode_stream(
    vae: Any, latents: Tensor, grid: str = AUTO, clips: Sequence[int] | None = None, *, whole: bool = False
) -> Iterator[Tensor]:
    """Frames ``n h w c`` of latents ``1 c t h w``; shows progress on the node.

    Memory stays that of short tiles, unless `whole` allows one tile over a whole clip.
    """
    check_latents(vae, latents, clips)
    bar = Bar(num_frames(vae, latents, clips))
    for clip in latents.split(list(clips), 2) if clips else [latents]:
        stream = frame_stream(vae, grid, clip.shape[2] if whole else None)
        for frames in chain(stream.push(clip), stream.flush()):
            bar.update(len(frames))
            yield frames
