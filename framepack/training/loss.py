"""The loss of flow matching over sections: predict the velocity, noise minus data (paper sections 3 and 4.2).

Each clip's noise comes from (seed, step, its number in the batch), drawn on the CPU: the same on every device, in
any split of the batch. Dims: b batch, c channels, t h w latent grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..packing.history import ContextGroup, gather
from ..planning.plan import Section
from ..sampling.sigmas import dynamic_shift
from ..units import BASE, RELEASED, Geometry
from .clips import Clips
from .config import History
from .corruption import corrupted, discretized, dropped
from .step_data import Draw

Velocity = Callable[[Tensor, Tensor, Mapping[str, Tensor], Section, list[ContextGroup]], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What a forward takes: noisy section ``b c t h w``, levels ``b``, context, and the velocity that is right."""

    noisy: Tensor
    sigma: Tensor
    history: list[ContextGroup]
    target: Tensor
    section: Section


def generator_of(seed: int, step: int, item: int) -> torch.Generator:
    """The source of noise of one clip of one step."""
    mixed = ((seed * 0x9E3779B97F4A7C15 + step) * 0xBF58476D1CE4E5B9 + item + 1) % 2**63
    return torch.Generator("cpu").manual_seed(mixed)


def shifted(t: Tensor, shift: float) -> Tensor:
    """Noise levels of times in [0, 1]; a larger shift gives higher levels."""
    return shift * t / (1 + (shift - 1) * t)


def batch_of(
    drawn: Draw,
    clips: Clips,
    how: History,
    sources: list[torch.Generator],
    places: range,
    *,
    of: int,
    geometry: Geometry = RELEASED,
) -> Batch:
    """Build the batch of a draw's clips, whose `places` are their numbers among all `of` clips of the step.

    Levels are spread evenly over the whole step's clips.
    """
    each = [_item(drawn, i, clips, how, source) for i, source in enumerate(sources)]
    clean, noise, contexts = (list(parts) for parts in zip(*each, strict=True))
    clean, noise = torch.stack(clean), torch.stack(noise)
    offsets = torch.stack([torch.rand((), generator=source) for source in sources])
    t = (torch.tensor(list(places)) + offsets) / of
    sigma = shifted(t, drawn.shift or dynamic_shift(geometry.num_tokens(BASE, *clean.shape[2:])))
    level = sigma.view(-1, 1, 1, 1, 1)
    history = [_stacked(groups) for groups in zip(*contexts, strict=True)]
    return Batch(
        noisy=(1 - level) * clean + level * noise,
        sigma=sigma,
        history=history,
        target=noise - clean,
        section=drawn.section,
    )


def _item(
    drawn: Draw, index: int, clips: Clips, how: History, source: torch.Generator
) -> tuple[Tensor, Tensor, list[ContextGroup]]:
    """A clip's section ``c t h w``, its noise, and its context."""
    section, clip, length = drawn.section, drawn.clips[index], drawn.num_lat_frames
    latents = clips.read(clip, length)
    clean = torch.cat([latents[:, start:stop] for start, stop in section.makes], 1)
    noise = torch.randn(clean.shape, generator=source)
    grey = clips.read_grey(clip, length) if how.saturates and section.context else None
    seen = corrupted(latents, grey, how, source) if section.context else latents
    if how.codebook and section.context:
        seen = discretized(seen[None], clips.centroids(how.codebook))[0]
    timeline = {i: (latents if i == 0 else seen)[None, :, i : i + 1] for i in section.known}
    return clean, noise, dropped(gather(section, timeline, clean[None]), how.dropout, source)


def _stacked(groups: tuple[ContextGroup, ...]) -> ContextGroup:
    return replace(groups[0], latents=torch.cat([group.latents for group in groups]))


def moved(
    batch: Batch, words: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype
) -> tuple[Batch, dict[str, Tensor]]:
    """A batch and its words on a device, in the model's dtype; levels and the right velocity stay in float32."""
    batch = replace(
        batch,
        noisy=batch.noisy.to(device, dtype),
        sigma=batch.sigma.to(device),
        history=[replace(group, latents=group.latents.to(device, dtype)) for group in batch.history],
        target=batch.target.to(device),
    )
    return batch, {n: w.to(device, dtype if w.is_floating_point() else w.dtype) for n, w in words.items()}


def loss_of(model: Velocity, batch: Batch, words: Mapping[str, Tensor]) -> Tensor:
    """Mean squared error of the velocity, of each clip: ``b``, float32."""
    velocity = model(batch.noisy, batch.sigma, words, batch.section, batch.history)
    return (velocity.float() - batch.target).square().flatten(1).mean(1)
