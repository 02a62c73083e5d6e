"""What Helios does to latents from outside before a section sees them: a little noise, as in its training.

Dims: b batch, c channels, t h w latent grid. All draws come from one generator, in the order of the release.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST, MOST = 0.111, 0.135  # noise levels


def noised(latents: Tensor, generator: torch.Generator) -> Tensor:
    """Latents ``b c t h w`` of an image at one noise level, drawn first."""
    return _mixed(latents, _levels(1, generator), generator)


def noised_frames(latents: Tensor, generator: torch.Generator, section: int) -> Tensor:
    """Latents ``b c t h w`` of a video, section by section of so many latent frames; each frame has its own level."""
    sections = latents.split(section, 2)
    return torch.cat([_mixed(some, _levels(some.shape[2], generator), generator) for some in sections], 2)


def _levels(num: int, generator: torch.Generator) -> Tensor:
    """Noise levels ``num 1 1``, one for each latent frame."""
    return (LEAST + (MOST - LEAST) * torch.rand(num, generator=generator)).view(-1, 1, 1)


def _mixed(latents: Tensor, levels: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(latents.shape, generator=generator)
    return (levels * noise + (1 - levels) * latents.cpu()).to(latents)
