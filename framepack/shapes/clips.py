"""Latents that training draws from, read from shards that may still be growing in number.

Dims: b batch, c channels, t h w grid.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..errors import FramePackError
from .encode import scene_of
from .world import caption


class LatentClips:
    """The shards in a folder, normalised per channel; `refresh` takes in what has been added."""

    def __init__(self, folder: Path):
        self.folder, self.seen = folder, set()
        self.clips, self.seeds = torch.empty(0), []
        self.mean = self.std = None
        self.refresh()
        if not self.seeds:
            raise FramePackError(f"{folder} holds no latents; make them: python -m framepack.shapes.encode")

    def refresh(self) -> None:
        """Read new shards. The first read fixes mean and deviation, ``1 c 1 1 1``."""
        new = sorted(set(self.folder.glob("*.safetensors")) - self.seen)
        if not new:
            return
        shards = [load_file(path) for path in new]
        raw = torch.cat([s["latents"] for s in shards])
        if self.mean is None:
            self.mean = raw.mean((0, 2, 3, 4), keepdim=True)
            self.std = raw.std((0, 2, 3, 4), keepdim=True)
        clips = (raw - self.mean) / self.std
        self.clips = torch.cat([self.clips, clips]) if self.seen else clips
        self.seeds += [int(seed) for s in shards for seed in s["seeds"]]
        self.seen |= set(new)

    def normalise_as(self, mean: Tensor, std: Tensor) -> None:
        """Go over to another mean and deviation, ``1 c 1 1 1``; the same ones leave every bit."""
        if torch.equal(mean, self.mean) and torch.equal(std, self.std):
            return
        self.clips = (self.clips * self.std + self.mean - mean) / std
        self.mean, self.std = mean, std

    def draw(self, rng: random.Random, batch: int) -> tuple[Tensor, list[str]]:
        """Latents ``b c t h w`` and captions, each in a wording drawn anew."""
        picked = [rng.randrange(len(self.seeds)) for _ in range(batch)]
        scenes = [replace(scene_of(self.seeds[i]), wording=rng.randrange(3)) for i in picked]
        return self.clips[picked], [caption(scene) for scene in scenes]


class Latents:
    """Whole clips of a folder, and the first frames of many more in its folder `first`, normalised alike."""

    def __init__(self, folder: Path):
        self.clips, self.first = LatentClips(folder), LatentClips(folder / "first")
        self.first.normalise_as(self.clips.mean, self.clips.std)

    def normalise_as(self, mean: Tensor, std: Tensor) -> None:
        """Go over to another mean and deviation, ``1 c 1 1 1``."""
        self.clips.normalise_as(mean, std)
        self.first.normalise_as(mean, std)

    def refresh(self) -> None:
        """Take in what has been added."""
        self.clips.refresh()
        self.first.refresh()
