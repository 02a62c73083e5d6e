"""Pyramid sampling (Helios, arXiv 2603.04379; Jin et al. 2024): a section is made small, then larger, stage by stage.

Dims: b batch, c channels, t h w latent grid. Each stage covers its own share of the timesteps, while its noise levels
run from 0.999 to 0. Between stages the latents are enlarged twofold, and noise that is correlated within patches takes
out the blocks that the enlarging makes. Nothing here knows a backbone: `velocity` is called at every size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import LatentSizeError
from .sigmas import linear_shift
from .solvers import SNR, Callback, Velocity, unipc

LEVELS = 1000  # timesteps of the training
HIGHEST = 0.999  # noise level of the first step of a stage
GAMMA = 1 / 3  # strength of the correlation within a patch
PATCH = 2  # latents of a patch's side
RELEASED_STEPS = (2, 2, 2)  # of the distilled model
Draw = Callable[[tuple[int, ...]], Tensor]  # a shape -> normal noise, from the section's own generator


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage's share of the timesteps, from `first` down to `last`, and the noise level at which it begins."""

    first: float
    last: float
    start: float

    def steps(self, num: int, num_tokens: int) -> tuple[Tensor, Tensor]:
        """Timesteps ``num`` and noise levels ``num + 1``, shifted by a number of tokens; float64."""
        levels = torch.linspace(HIGHEST, HIGHEST / LEVELS, num, dtype=torch.float64)
        return self._shifted(levels, num_tokens)

    def distilled_steps(self, num: int, num_tokens: int) -> tuple[Tensor, Tensor]:
        """The same for a distilled model: the levels of one step more, without the last."""
        levels = torch.linspace(HIGHEST, HIGHEST / LEVELS, num + 1, dtype=torch.float64)[:-1]
        return self._shifted(levels, num_tokens)

    def _shifted(self, levels: Tensor, num_tokens: int) -> tuple[Tensor, Tensor]:
        shift = linear_shift(num_tokens)
        levels = shift / (shift + (1 / levels - 1))
        return self.last + levels * (self.first - self.last), torch.cat([levels, levels.new_zeros(1)])

    @property
    def renoising(self) -> tuple[float, float]:
        """Shares of the enlarged latents and of block noise at the stage's start, which give its noise level."""
        signal = 1 - self.start
        alpha = 1 / (math.sqrt(1 + 1 / GAMMA) * self.start + signal)
        return alpha, alpha * self.start / math.sqrt(GAMMA)


def stages_of(num: int) -> list[Stage]:
    """The stages of a pyramid, small to large. Their shares of the timesteps are as their ways through noise levels."""
    levels = [HIGHEST * (LEVELS - i) / LEVELS for i in range(LEVELS)]
    bounds = [int(i / num * LEVELS) for i in range(num + 1)]
    starts = [levels[bound] for bound in bounds[:-1]]
    ways = []
    for i, start in enumerate(starts):
        signal = 1 - start
        corrected = start if i == 0 else 1 - signal / (math.sqrt(1 + 1 / GAMMA) * start + signal)
        ways.append(corrected - (levels[bounds[i + 1]] if bounds[i + 1] < LEVELS else 0.0))
    ratios = [sum(ways[:i]) / sum(ways) for i in range(num)] + [1.0]
    found = []
    for start, low, high in zip(starts, ratios[:-1], ratios[1:], strict=True):
        first = min(LEVELS * levels[int(low * LEVELS)], LEVELS - 1)
        final = LEVELS * levels[min(int(high * LEVELS), LEVELS - 1)]
        found.append(Stage(first=first, last=first + (final - first) * (LEVELS - 1) / LEVELS, start=start))
    return found


def pyramid(
    velocity: Velocity,
    noise: Tensor,
    steps: Sequence[int],
    draw: Draw,
    *,
    distilled: bool = False,
    still_steps: int = 0,
    callback: Callback | None = None,
) -> Tensor:
    """A section's latents ``b c t h w``, by so many steps in each stage, from noise of the full size.

    `velocity` takes latents and a timestep over 1000. A distilled model predicts x0 and is renoised towards the
    stage's start. `still_steps`: steps of the first stage that go along no velocity (CFG-Zero*). Raises
    LatentSizeError for a size that the stages cannot halve.
    """
    check_size(noise, len(steps))
    x, done = shrunk(noise, len(steps) - 1), 0
    for i, (stage, num) in enumerate(zip(stages_of(len(steps)), steps, strict=True)):
        num_tokens = x.shape[2] * x.shape[3] * x.shape[4] // PATCH**2  # before it is enlarged, as in the release
        if i:
            signal, share = stage.renoising
            x = enlarged(x)
            x = signal * x + share * block_noise(x.shape, draw).to(x)
        way = distilled_way if distilled else solved_way
        x = way(_Leg(velocity, stage, num, num_tokens, still_steps if i == 0 else 0, done, callback), x)
        done += num
    return x


@dataclass(frozen=True, slots=True)
class _Leg:
    """One stage of a run."""

    velocity: Velocity
    stage: Stage
    num: int
    num_tokens: int
    still: int
    done: int
    callback: Callback | None

    def at(self, x: Tensor, step: int, timestep: Tensor) -> Tensor:
        """The velocity at a timestep, which the model was given as an integer."""
        return torch.zeros_like(x) if step < self.still else self.velocity(x, timestep.trunc().to(x) / LEVELS)

    def report(self, step: int, x: Tensor, x0: Tensor) -> None:
        """After a step of the stage."""
        if self.callback:
            self.callback(self.done + step, x, x0)


def solved_way(leg: _Leg, x: Tensor) -> Tensor:
    """A stage by UniPC of order 2."""
    timesteps, levels = leg.stage.steps(leg.num, leg.num_tokens)
    places = {float(level): i for i, level in enumerate(levels)}

    def velocity(x: Tensor, sigma: Tensor) -> Tensor:
        step = places[float(sigma)]
        return leg.at(x, step, timesteps[step])

    return unipc(velocity, x, levels, leg.report, order=2, form=SNR)


def distilled_way(leg: _Leg, x: Tensor) -> Tensor:
    """A stage of a distilled model: x0, then the stage's start mixed in again at the next noise level."""
    timesteps, levels = leg.stage.distilled_steps(leg.num, leg.num_tokens)
    start, whole = x, timesteps.trunc()
    levels = [float(levels[(timesteps - t).abs().argmin()]) for t in whole] + [0.0]
    for step, (sigma, below) in enumerate(zip(levels[:-1], levels[1:], strict=True)):
        x0 = x - sigma * leg.at(x, step, timesteps[step])
        leg.report(step, x, x0)
        x = (1 - below) * x0 + below * start
    return x


def check_size(noise: Tensor, num_stages: int) -> None:
    """Raises LatentSizeError for latents ``b c t h w`` that are no whole patches in the smallest stage."""
    check_sides(*noise.shape[3:], num_stages)


def check_sides(height: int, width: int, num_stages: int, spatial: int = 1) -> None:
    """Raises LatentSizeError for sides that stages cannot halve, in units of 1/`spatial` latent: 8 for pixels."""
    unit = spatial * PATCH * 2 ** (num_stages - 1)
    if height % unit or width % unit:
        what = "latents of" if spatial == 1 else "a video of"
        near = (max(round(side / unit), 1) * unit for side in (width, height))
        raise LatentSizeError(
            f"A pyramid of {num_stages} stages takes {what} a width and height that are multiples of {unit}; got "
            f"{width}x{height}. Try {'x'.join(map(str, near))}."
        )


def shrunk(noise: Tensor, times: int) -> Tensor:
    """Noise ``b c t h w`` at half the size, so many times; it keeps its variance."""
    for _ in range(times):
        noise = 2 * _resized(noise, 0.5, "bilinear")
    return noise


def enlarged(x: Tensor) -> Tensor:
    """Latents ``b c t h w`` at twice the size."""
    return _resized(x, 2, "nearest")


def _resized(x: Tensor, factor: float, mode: str) -> Tensor:
    size = [round(factor * side) for side in x.shape[3:]]
    frames = F.interpolate(x.transpose(1, 2).flatten(0, 1), size=size, mode=mode)  # (b t) c h w
    return frames.unflatten(0, (len(x), -1)).transpose(1, 2)


def block_noise(shape: Sequence[int], draw: Draw) -> Tensor:
    """Noise ``b c t h w`` whose values in a 2x2 patch have the variance 1 and the covariance -1/3."""
    b, c, t, h, w = shape
    size = PATCH**2
    # In float64: in float32 rounding can make the matrix indefinite, since its smallest eigenvalue is 1e-8.
    covariance = torch.eye(size, dtype=torch.float64) * (1 + GAMMA + 1e-8) - GAMMA
    noise = draw((b * c * t * (h // PATCH) * (w // PATCH), size)) @ torch.linalg.cholesky(covariance).T.float()
    blocks = noise.view(b, c, t, h // PATCH, w // PATCH, PATCH, PATCH)
    return blocks.transpose(4, 5).reshape(b, c, t, h, w)
