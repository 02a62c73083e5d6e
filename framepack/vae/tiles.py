"""Streaming decode over tiles in time: each tile once, as soon as its latents exist.

Dims: b batch, c channels, t latent frames, n pixel frames, h w picture. Latents ``b c t h w``, frames ``b c n h w``.

HunyuanVideo's decoder normalises over groups that span time, so a frame depends on all that is decoded with it, and
no cache of the past makes pieces equal to a whole. A fixed grid of tiles does: what a tile holds does not depend on
how the latents arrived. A tile's first latent gives one frame, all others four; of two tiles that overlap the later
one drops that first frame, and the rest of the overlap is blended linearly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import FramePackError, LatentSizeError
from ..units import FRAMES_PER_LATENT, pixel_frames

Decode = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class TileGrid:
    """Tiles of `tile` latent frames that start every `stride`; 5 and 3 are what the VAE was released with.

    Raises FramePackError where tiles leave a gap, or more than two lie over a frame.
    """

    tile: int = 5
    stride: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.stride < self.tile <= 2 * self.stride + 1:
            raise FramePackError(
                f"tiles of {self.tile} latent frames every {self.stride} came; expected a stride of at least 1, and "
                "tiles longer than it by 1 at least and by its length plus 1 at most; 5 every 3 is the released grid"
            )

    @property
    def overlap(self) -> int:
        """Pixel frames that two neighbouring tiles are blended over."""
        return FRAMES_PER_LATENT * (self.tile - 1 - self.stride)

    def tiles(self, num_lat_frames: int) -> list[range]:
        """Latent frames of each tile; none of one latent alone, whose frame would be dropped, but for the first."""
        starts = range(0, max(num_lat_frames - 1, min(num_lat_frames, 1)), self.stride)
        return [range(start, min(start + self.tile, num_lat_frames)) for start in starts]


GRID = TileGrid()


class TileStream:
    """Push latents in pieces of any size; frames come out as soon as no later latent can change them.

    `decode` takes latents ``b c t h w`` of one tile to its frames ``b c 4t-3 h w``; it alone knows the VAE.
    It holds the latents of one tile and the frames of one overlap, whatever the video's length.
    """

    def __init__(self, decode: Decode, grid: TileGrid = GRID):
        self.decode, self.grid = decode, grid
        self._latents: Tensor | None = None  # from the next tile's start on
        self._tail: Tensor | None = None  # the last frames of the tile before, to blend over; None before the first

    def push(self, latents: Tensor) -> Iterator[Tensor]:
        """Latents ``b c t h w`` that follow those pushed before -> final frames ``b c n h w``, tile by tile.

        Raises LatentSizeError for latents of another rank or shape, FramePackError where a tile has not 4t - 3 frames.
        """
        held = self._latents
        if latents.ndim != 5 or not latents.shape[2]:
            raise LatentSizeError(f"latents {tuple(latents.shape)} came; expected b c t h w with t of 1 or more")
        if held is None or not held.shape[2]:
            self._latents = latents
        else:
            came, expected = ((*x.shape[:2], *x.shape[3:]) for x in (latents, held))
            if came != expected:
                raise LatentSizeError(
                    f"latents b c h w {came} came after {expected}; push the pieces of one video, all of one size"
                )
            self._latents = torch.cat([held, latents], 2)
        return self._ready()

    def flush(self) -> Iterator[Tensor]:
        """What remains at the end of the video; the stream is then as new."""
        yield from self._ready()
        yield from self._ready(ending=True)
        tail = self._tail
        self._latents = self._tail = None
        if tail is not None and tail.shape[2]:
            yield tail

    def _ready(self, ending: bool = False) -> Iterator[Tensor]:
        """Decode every tile that is complete, or at the video's end every one that makes a frame."""
        grid = self.grid
        while (held := self._latents) is not None:
            first = self._tail is None
            makes_a_frame = held.shape[2] > (0 if first else 1)
            if not makes_a_frame or (held.shape[2] < grid.tile and not ending):
                return
            frames = self._blended(held[:, :, : grid.tile], self._tail)
            self._latents = held[:, :, grid.stride :]
            final = FRAMES_PER_LATENT * grid.stride + first
            self._tail = frames[:, :, final:].clone()  # a view would hold all of the tile
            yield frames[:, :, :final]

    def _blended(self, latents: Tensor, tail: Tensor | None) -> Tensor:
        """A tile's frames, but those that the tiles before have made final."""
        frames = self.decode(latents.contiguous())  # the same bits, however the latents came
        expected = pixel_frames(latents.shape[2])
        if frames.ndim != 5 or frames.shape[2] != expected:
            raise FramePackError(
                f"the VAE made frames {tuple(frames.shape)} of {latents.shape[2]} latent frames; expected "
                f"b c n h w with n = {expected}, which is 4t - 3. Use the VAE that the model was trained with."
            )
        if tail is None:
            return frames
        frames, over = frames[:, :, 1:], min(tail.shape[2], expected - 1)
        weight = torch.arange(over, device=frames.device, dtype=frames.dtype)[:, None, None]
        seam = torch.lerp(tail[:, :, :over], frames[:, :, :over], weight / max(self.grid.overlap, 1))
        return torch.cat([seam, frames[:, :, over:], tail[:, :, over:]], 2)


def decode_tiled(decode: Decode, latents: Tensor, grid: TileGrid = GRID) -> Tensor:
    """A whole video at once: latents ``b c t h w`` -> frames ``b c 4t-3 h w``. Raises as TileStream does."""
    stream = TileStream(decode, grid)
    return torch.cat([*stream.push(latents), *stream.flush()], 2)
