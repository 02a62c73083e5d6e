"""Clips that training draws from, read from a cache.

Dims: b batch, c channels, t h w latent grid.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ..errors import FramePackError
from ..packing.codebook import Codebook
from .cache import Clip, Index, clip_path, read_tensors

HELD = 64  # files whose tensors stay in memory


class Clips:
    """The clips of a cache; `mean` and `std`, ``c`` each, normalise latents that were cached unscaled."""

    def __init__(self, folder: Path, mean: Sequence[float] = (), std: Sequence[float] = (), held: int = HELD):
        self.folder, self.index = folder, Index.read(folder)
        if not self.index.clips:
            raise FramePackError(
                f"The cache {folder} holds no clips; see what was left out in {folder / 'index.json'}."
            )
        self.scale = (torch.tensor(mean).view(-1, 1, 1, 1), torch.tensor(std).view(-1, 1, 1, 1)) if mean else None
        self._read = lru_cache(held)(lambda file: read_tensors(clip_path(folder, file)))
        self._long: dict[tuple[int, str], dict[tuple[int, int], list[Clip]]] = {}

    def __len__(self) -> int:
        return len(self.index.clips)

    @property
    def longest(self) -> int:
        """Latent frames of the longest clip."""
        return max(clip.num_lat_frames for clip in self.index.clips)

    def long_enough(self, num_lat_frames: int, tag: str = "") -> dict[tuple[int, int], list[Clip]]:
        """The clips of at least so many latent frames, by their grid; of a tag, where one is given."""
        if (num_lat_frames, tag) not in self._long:
            grids: dict[tuple[int, int], list[Clip]] = {}
            for clip in self.index.clips:
                if clip.num_lat_frames >= num_lat_frames and tag in ("", clip.tag):
                    grids.setdefault(clip.grid, []).append(clip)
            self._long[num_lat_frames, tag] = grids
        return self._long[num_lat_frames, tag]

    def largest_grid(self, num_lat_frames: int) -> tuple[int, int]:
        """The largest latent height and width among the clips of at least so many latent frames."""
        return max(self.long_enough(num_lat_frames), key=lambda grid: grid[0] * grid[1])

    def draw(self, rng: random.Random, num_lat_frames: int, count: int, tag: str = "") -> list[Clip]:
        """So many clips of one grid, each at least so long; a grid is as likely as it has clips."""
        grids = list(self.long_enough(num_lat_frames, tag).values())
        picked = rng.choices(grids, list(map(len, grids)))[0]
        return rng.choices(picked, k=count)

    def sample(self, count: int, files: int = 12) -> list[Clip]:
        """So many clips of more than one latent frame, from a few files that lie evenly spread."""
        whole = [clip for clip in self.index.clips if clip.num_lat_frames > 1]
        names = list(dict.fromkeys(clip.file for clip in whole))
        chosen = set(names[:: max(len(names) // files, 1)])
        some = [clip for clip in whole if clip.file in chosen]
        return some[:: max(len(some) // count, 1)]

    @cache  # noqa: B019 - a run has one
    def centroids(self, codebook: Path, device: torch.device | str = "cpu") -> Tensor:
        """A codebook's centroids ``k c``, normalised as the latents are; it is of latents as the cache holds them."""
        values = Codebook.load(codebook).centroids
        if self.scale:
            mean, std = (each.flatten() for each in self.scale)
            values = (values - mean) / std
        return values.to(device)

    def read(self, clip: Clip, num_lat_frames: int) -> Tensor:
        """The first latent frames of a clip, ``c t h w``."""
        return self._latents(clip, clip.name, num_lat_frames)

    def read_grey(self, clip: Clip, num_lat_frames: int) -> Tensor:
        """The same of the clip without its colours. Raises FramePackError where the cache has none."""
        if not self.index.grey:
            raise FramePackError("history.saturation needs clips in grey, which this cache lacks; encode again.")
        return self._latents(clip, f"{clip.name}.grey", num_lat_frames)

    def _latents(self, clip: Clip, name: str, num_lat_frames: int) -> Tensor:
        latents = self._read(clip.file)[name][:, :num_lat_frames].float()
        if self.scale is None:
            return latents
        mean, std = self.scale
        return (latents - mean) / std
