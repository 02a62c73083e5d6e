"""Clips that stay on a device, whose batches are built there at once: for models so small that fetching takes longest.

Noise and levels come from (seed, step, the first clip's place), drawn on the device.
Dims: n clips, b batch, c channels, t h w latent grid.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..packing.history import ContextGroup, gather
from ..sampling.sigmas import dynamic_shift
from ..units import BASE, RELEASED, Geometry
from .cache import Clip, clip_path, read_tensors
from .clips import Clips
from .config import History
from .corruption import discretized
from .loss import Batch, generator_of, shifted
from .settings import ConfigError
from .step_data import Draw

KEPT_IN = torch.float16


def placed(values: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; a GPU takes it without being waited for."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


class Resident(Clips):
    """A cache's clips in a device's memory, normalised, in one tensor for each length and grid."""

    def __init__(
        self, folder: Path, mean: Sequence[float] = (), std: Sequence[float] = (), device: torch.device | str = "cpu"
    ):
        super().__init__(folder, mean, std, held=1)
        self.device = torch.device(device)
        alike: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
        self.place: dict[tuple[str, str], tuple[tuple[int, ...], int]] = {}  # file and name to shape and row
        files: dict[str, list[Clip]] = defaultdict(list)
        for clip in self.index.clips:
            files[clip.file].append(clip)
        for file, some in files.items():
            tensors = read_tensors(clip_path(folder, file))
            for clip in some:
                self.place[clip.file, clip.name] = (clip.shape, len(alike[clip.shape]))
                alike[clip.shape].append(tensors[clip.name])
        self.whole = {shape: self._normalised(torch.stack(alike.pop(shape))) for shape in list(alike)}

    def _normalised(self, latents: Tensor) -> Tensor:
        """Latents ``n c t h w``, moved some at a time."""
        parts = []
        for some in latents.split(512):
            x = some.to(self.device).float()
            if self.scale:
                mean, std = (values.to(self.device) for values in self.scale)
                x = (x - mean) / std
            parts.append(x.to(KEPT_IN))
        return torch.cat(parts)

    def latents(self, clips: Sequence[Clip], num_lat_frames: int) -> Tensor:
        """The first latent frames of clips, ``b c t h w``, float32."""
        by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, clip in enumerate(clips):
            by_shape[self.place[clip.file, clip.name][0]].append(index)
        parts, order = [], []
        for shape, indices in by_shape.items():
            rows = torch.tensor([self.place[clips[i].file, clips[i].name][1] for i in indices])
            parts.append(self.whole[shape][:, :, :num_lat_frames].index_select(0, placed(rows, self.device)))
            order += indices
        found = torch.cat(parts).float() if len(parts) > 1 else parts[0].float()
        if len(parts) == 1:
            return found
        back = torch.empty(len(order), dtype=torch.long)
        back[torch.tensor(order)] = torch.arange(len(order))
        return found.index_select(0, placed(back, self.device))

    def batch(
        self, drawn: Draw, how: History, seed: int, step: int, places: range, *, of: int, geometry: Geometry = RELEASED
    ) -> Batch:
        """The batch of a draw's clips, as `batch_of` makes it clip by clip."""
        section = drawn.section
        source = torch.Generator(self.device)
        source.manual_seed(generator_of(seed, step, places.start).initial_seed())
        latents = self.latents(drawn.clips, drawn.num_lat_frames)
        clean = torch.cat([latents[:, :, start:stop] for start, stop in section.makes], 2)
        noise = torch.randn(clean.shape, generator=source, device=self.device)
        offsets = torch.rand(len(latents), generator=source, device=self.device)
        t = (torch.arange(places.start, places.stop, device=self.device) + offsets) / of
        sigma = shifted(t, drawn.shift or dynamic_shift(geometry.num_tokens(BASE, *clean.shape[2:])))
        level = sigma.view(-1, 1, 1, 1, 1)
        return Batch(
            noisy=(1 - level) * clean + level * noise,
            sigma=sigma,
            history=self._history(drawn, latents, clean, how, source) if section.context else [],
            target=noise - clean,
            section=section,
        )

    def _history(
        self, drawn: Draw, latents: Tensor, clean: Tensor, how: History, source: torch.Generator
    ) -> list[ContextGroup]:
        seen = self._corrupted(latents, how, source)
        timeline = {i: (latents if i == 0 else seen)[:, :, i : i + 1] for i in drawn.section.known}
        groups = gather(drawn.section, timeline, clean)
        if not how.dropout:
            return groups
        kept = torch.rand(len(groups), len(latents), generator=source, device=self.device) >= how.dropout
        return [
            replace(group, latents=group.latents * keep.view(-1, 1, 1, 1, 1))
            for group, keep in zip(groups, kept, strict=True)
        ]

    def _corrupted(self, latents: Tensor, how: History, source: torch.Generator) -> Tensor:
        """Clips as history: with noise of each clip's own strength, then discretized."""
        if how.saturates or how.downsample != (1.0, 1.0):
            raise ConfigError("history.saturation and history.downsample are not available for clips on a device.")
        seen, (low, high) = latents, how.noise
        if high:
            shape = (len(latents), 1, 1, 1, 1)
            draws = torch.rand(2, *shape, generator=source, device=self.device)
            level = (low + (high - low) * draws[0]) * (draws[1] < how.corrupted)
            noise = torch.randn(latents.shape, generator=source, device=self.device)
            seen = (1 - level) * seen + level * noise
        if how.codebook:
            seen = discretized(seen, self.centroids(how.codebook, self.device))
        return seen
