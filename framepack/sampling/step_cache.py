"""A step cache: where denoised latents change evenly, the next ones are extrapolated and no block runs.

Over the noise levels sigma each pass draws a curve of denoised latents x0(sigma). A skipped step takes x0 from the
straight line through the last two computed steps. It is off by no more than about ``|dx0/dsigma| (last - sigma)``, and
the solver's step down to the level `below` moves the latents by that times ``(sigma - below) / sigma``. Steps are
skipped as long as the sum of these, the drift, stays under the threshold. Chosen by measurement: docs/step-cache.md.

Dims: p passes stacked in the batch, b batch, c channels, t h w latent grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..errors import FramePackError


@dataclass(frozen=True, slots=True)
class _Computed:
    """The last computed step of a pass. `slope` is dx0/dsigma since the one before, `speed` its size over x0's."""

    sigma: float
    x0: Tensor
    slope: Tensor | None = None
    speed: float = math.inf

    def then(self, sigma: float, x0: Tensor) -> _Computed:
        """The step computed after this one; a solver may ask for a level twice, which adds nothing to the slope."""
        if sigma == self.sigma:
            return replace(self, x0=x0)
        if sigma > self.sigma or x0.shape != self.x0.shape:
            return _Computed(sigma, x0)
        slope = (x0 - self.x0) / (sigma - self.sigma)
        return _Computed(sigma, x0, slope, float(slope.norm() / x0.norm().clamp_min(1e-12)))

    def at(self, sigma: float) -> Tensor:
        """The guess of x0 at a lower level."""
        assert self.slope is not None, "two steps come before the first guess"
        return torch.add(self.x0, self.slope, alpha=sigma - self.sigma)


@dataclass(slots=True)
class StepCache:
    """The cache of one run over the noise levels `sigmas`, highest first.

    `threshold` is the most that the latents may drift over steps skipped in a row, in percent of their size; 0 computes
    every step. The first two steps and the last are always computed. Passes (positive, negative) have states of their
    own and are skipped together. Raises FramePackError for a threshold out of range.
    """

    threshold: float
    sigmas: Sequence[float]
    computed: int = 0
    skipped: int = 0
    _passes: dict[Hashable, _Computed] = field(default_factory=dict)
    _now: float = math.inf  # the level that is decided on
    _last: float = math.inf  # the level that was computed last
    _drift: float = 0.0
    _skips: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 100:
            raise FramePackError(f"The threshold must be 0 to 100 percent; got {self.threshold:g}. Try 0.3.")

    def run(
        self, keys: Sequence[Hashable], sigma: float, compute: Callable[[], Tensor], size: Sequence[int] | None = None
    ) -> Tensor:
        """Denoised latents ``(p b) c t h w`` of the passes that `keys` name, computed or guessed.

        `size` is ``c t h w`` now; where a pyramid has enlarged the latents, nothing is guessed.
        """
        if not self.threshold:
            self.computed += len(keys)
            return compute()
        if sigma != self._now:
            self._decide(sigma)
        if self._skips and all(self._knows(key, size) for key in keys):
            self.skipped += len(keys)
            return torch.cat([self._passes[key].at(sigma) for key in keys])
        out = compute()
        self.computed += len(keys)
        for key, x0 in zip(keys, out.chunk(len(keys)), strict=True):
            before = self._passes.get(key)
            self._passes[key] = before.then(sigma, x0) if before else _Computed(sigma, x0)
        return out

    def _knows(self, key: Hashable, size: Sequence[int] | None) -> bool:
        """Was the pass computed at the last level, and at this size?"""
        found = self._passes.get(key)
        return found is not None and found.sigma == self._last and size in (None, tuple(found.x0.shape[1:]))

    def _decide(self, sigma: float) -> None:
        """Is the step at this level skipped, in every pass?"""
        self._now, self._skips = sigma, False
        speed = max((c.speed for c in self._passes.values() if c.sigma == self._last), default=math.inf)
        if sigma > self.sigmas[-2] and sigma < self._last:
            below = max(level for level in self.sigmas if level < sigma)
            self._drift += 100 * speed * (self._last - sigma) * (sigma - below) / sigma
            self._skips = self._drift < self.threshold
        if not self._skips:
            self._last, self._drift = sigma, 0.0
