"""Streaming decode over tiles in time: each tile once, as soon as its latents exist.

Dims: b batch, c channels, t latent frames, n pixel frames, h w picture. Latents ``b c t h w``, frames ``b c n h w``.

HunyuanVideo's decoder normalises over groups that span time, so a frame depends on all that is decoded with it, and
no cache of the past makes pieces equal to a whole. A fixed grid of tiles does: the content of a tile does not depend on
how the latents arrived. A tile's first latent gives one frame, all others four. Of two tiles that overlap, the later
one drops that first frame, and the rest of the overlap is blended linearly.

Longer tiles decode fewer frames twice and need more memory: `longest_grid` chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import FramePackError, LatentSizeError
from ..units import RELEASED as RELEASED_GEOMETRY
from ..units import Geometry

Decode = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class TileGrid:
    """Tiles of `tile` latent frames that start every `stride`. HunyuanVideo's VAE was released with 5 every 3.

    Raises FramePackError if tiles leave a gap, or if more than two lie over a frame.
    """

    tile: int = 5
    stride: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.stride < self.tile <= 2 * self.stride + 1:
            raise FramePackError(
                f"Tiles must overlap by 1 latent frame or more, and no three may overlap; got {self} latent frames. "
                "Try 5 every 3."
            )

    def __str__(self) -> str:
        return f"{self.tile} every {self.stride}"

    @property
    def overlap(self) -> int:
        """Latent frames that two neighbouring tiles are blended over."""
        return self.tile - 1 - self.stride

    def tiles(self, num_lat_frames: int) -> list[range]:
        """Latent frames of each tile. Only a first tile may hold one latent: any other would drop its one frame."""
        starts = range(0, max(num_lat_frames - 1, min(num_lat_frames, 1)), self.stride)
        return [range(start, min(start + self.tile, num_lat_frames)) for start in starts]


RELEASED = TileGrid()
STREAMED = TileGrid(tile=9, stride=7)  # the longest for streams, whose memory must not grow with the video
_LONG_TILES = (129, 65, 33, 17, STREAMED.tile)  # far apart, so that a little more free memory seldom changes a frame


def longest_grid(fits: Callable[[int], bool], whole: int | None = None) -> TileGrid:
    """The longest tiles that fit in memory, from the released ones up: to one tile over a `whole` video of so many
    latent frames, or for a stream, whose length is not known, to STREAMED.

    `fits` tells whether memory suffices for a tile of so many latent frames.
    """
    if whole and whole > RELEASED.tile and fits(whole):
        return TileGrid(tile=whole, stride=whole - 1)
    tiles = (tile for tile in _LONG_TILES if tile <= (whole or STREAMED.tile) and fits(tile))
    return next((TileGrid(tile=tile, stride=tile - 2) for tile in tiles), RELEASED)


class TileStream:
    """Push latents in pieces of any size; frames come out as soon as no later latent can change them.

    `decode` turns latents ``b c t h w`` of one tile into its frames ``b c n h w``; nothing else here knows the VAE.
    The stream holds the latents of one tile and the frames of one overlap, whatever the video's length.
    """

    def __init__(self, decode: Decode, grid: TileGrid = RELEASED, geometry: Geometry = RELEASED_GEOMETRY):
        self.decode, self.grid, self.geometry = decode, grid, geometry
        self._latents: Tensor | None = None  # from the next tile's start on
        self._tail: Tensor | None = None  # the last frames of the tile before, to blend over; None before the first

    def push(self, latents: Tensor) -> Iterator[Tensor]:
        """Latents ``b c t h w`` that follow those pushed before -> final frames ``b c n h w``, tile by tile.

        Raises LatentSizeError for latents of another rank or shape, FramePackError if a tile does not give 4t - 3
        frames.
        """
        held = self._latents
        if latents.ndim != 5 or not latents.shape[2]:
            raise LatentSizeError(f"Latents must be b c t h w with t of 1 or more; got {tuple(latents.shape)}.")
        if held is None or not held.shape[2]:
            self._latents = latents
        else:
            new, old = ((*x.shape[:2], *x.shape[3:]) for x in (latents, held))
            if new != old:
                raise LatentSizeError(f"Pieces of one video must have one size; got b c h w {new} after {old}.")
            self._latents = torch.cat([held, latents], 2)
        return self._ready()

    def flush(self) -> Iterator[Tensor]:
        """The frames that remain at the end of the video. After it, the stream can take another video."""
        yield from self._ready()
        yield from self._ready(ending=True)
        tail = self._tail
        self._latents = self._tail = None
        if tail is not None and tail.shape[2]:
            yield tail

    def _ready(self, ending: bool = False) -> Iterator[Tensor]:
        """Decode every complete tile, or at the video's end every tile that makes a frame."""
        grid = self.grid
        while (held := self._latents) is not None:
            first = self._tail is None
            makes_a_frame = held.shape[2] > (0 if first else 1)
            if not makes_a_frame or (held.shape[2] < grid.tile and not ending):
                return
            frames = self._blended(held[:, :, : grid.tile], self._tail)
            self._latents = held[:, :, grid.stride :]
            final = self.geometry.temporal * grid.stride + first
            self._tail = frames[:, :, final:].clone()  # a view would hold all of the tile
            yield frames[:, :, :final]

    def _blended(self, latents: Tensor, tail: Tensor | None) -> Tensor:
        """A tile's frames without those that earlier tiles made final."""
        frames = self.decode(latents.contiguous())  # equal bits, however the latents arrived
        expected = self.geometry.pixel_frames(latents.shape[2])
        if frames.ndim != 5 or frames.shape[2] != expected:
            raise FramePackError(
                f"The VAE must make {expected} frames of {latents.shape[2]} latent frames, b c n h w; got "
                f"{tuple(frames.shape)}. Load the VAE that the model was trained with."
            )
        if tail is None:
            return frames
        frames, over = frames[:, :, 1:], min(tail.shape[2], expected - 1)
        weight = torch.arange(over, device=frames.device, dtype=frames.dtype)[:, None, None]
        ramp = max(self.geometry.temporal * self.grid.overlap, 1)
        seam = torch.lerp(tail[:, :, :over], frames[:, :, :over], weight / ramp)
        return torch.cat([seam, frames[:, :, over:], tail[:, :, over:]], 2)


def decode_tiled(decode: Decode, latents: Tensor, grid: TileGrid = RELEASED) -> Tensor:
    """A whole video at once: latents ``b c t h w`` -> frames ``b c 4t-3 h w``. Raises as TileStream does."""
    stream = TileStream(decode, grid)
    return torch.cat([*stream.push(latents), *stream.flush()], 2)
