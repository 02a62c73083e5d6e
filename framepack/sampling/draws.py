"""The noise of a plan: that of each section, what its solver draws beside it, and what latents from outside get.

Dims: b batch, c channels, t h w latent grid.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ..planning.outside import Outside
from ..planning.takes import Takes

Shape = tuple[int, ...]
Extra = Callable[[Shape], Sequence[Shape]]  # what a solver draws for a section of a shape, beside its noise
Levels = tuple[float, float]  # the least and the most noise that a model gives to latents from outside

_STEP = 0x9E3779B97F4A7C15


class Draws(Protocol):
    """Where noise is drawn from."""

    def outside(self, slot: str) -> torch.Generator:
        """The generator of a slot's latents."""
        ...

    def section(self, index: int, shape: Shape, extra: Extra) -> tuple[Tensor, torch.Generator]:
        """Noise ``b c t h w`` of a section, number `index` of its plan, and the generator that goes on from there."""
        ...


class BySection:
    """Each section has a generator that seed and index alone decide, so that an edit elsewhere leaves it unchanged."""

    def __init__(self, seed: int):
        self.seed = seed

    def outside(self, slot: str) -> torch.Generator:
        """The seed's and the slot's own."""
        number = int.from_bytes(hashlib.sha256(slot.encode()).digest()[:8])
        return torch.Generator("cpu").manual_seed((self.seed * _STEP ^ number) % 2**63)

    def section(self, index: int, shape: Shape, extra: Extra) -> tuple[Tensor, torch.Generator]:
        """From the section's own generator."""
        generator = torch.Generator("cpu").manual_seed((self.seed * _STEP + index + 1) % 2**63)
        return torch.randn(shape, generator=generator), generator


class InTurn:
    """One generator from which everything draws, in the order of the release: first what is from outside.

    The order stays, whatever a section's sampler does: a section that is loaded from the store has drawn too.
    """

    def __init__(self, seed: int):
        self.generator = torch.Generator("cpu").manual_seed(seed)

    def outside(self, slot: str) -> torch.Generator:
        """The one for all."""
        return self.generator

    def section(self, index: int, shape: Shape, extra: Extra) -> tuple[Tensor, torch.Generator]:
        """The next noise, with a copy of the generator for what the sampler draws beside it."""
        noise = torch.randn(shape, generator=self.generator)
        own = torch.Generator("cpu").set_state(self.generator.get_state())
        for more in extra(shape):
            torch.randn(more, generator=self.generator)
        return noise, own


class Retaken:
    """Draws where single sections have seeds of their own; all other noise stays as it is without them."""

    def __init__(self, draws: Draws, takes: Takes):
        self.draws, self.takes = draws, takes

    def outside(self, slot: str) -> torch.Generator:
        """As without takes."""
        return self.draws.outside(slot)

    def section(self, index: int, shape: Shape, extra: Extra) -> tuple[Tensor, torch.Generator]:
        """From its own seed, if the section has one."""
        drawn = self.draws.section(index, shape, extra)  # in turn, the others draw after it
        take = self.takes.get(index)
        if take is None or take.seed is None:
            return drawn
        return BySection(take.seed).section(index, shape, extra)


def noised(
    timeline: Mapping[int | str, Tensor], outside: Iterable[Outside], levels: Levels | None, draws: Draws, like: Tensor
) -> dict[int | str, Tensor]:
    """The timeline with noise on its latents ``b c 1 h w`` from outside, as the model had in its training.

    A clip's frames draw their levels, then their noise. `like` states batch, channels and grid; levels of None give no
    noise.
    """
    found, (least, most) = dict(timeline), levels or (0.0, 0.0)
    for each in outside if levels else ():
        generator, names = draws.outside(each.slot), iter(each.names)
        for num in each.clips:
            sigmas = least + (most - least) * torch.rand(num, generator=generator)
            noise = torch.randn((*like.shape[:2], num, *like.shape[3:]), generator=generator)
            for sigma, one in zip(sigmas, noise.split(1, 2), strict=True):
                if (name := next(names)) in found:
                    latent = found[name]
                    found[name] = (sigma * one + (1 - sigma) * latent.cpu()).to(latent)
    return found
