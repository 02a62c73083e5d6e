"""The pyramid as a solver: it states its own noise levels and draws noise between its stages.

Dims: b batch, c channels, t h w latent grid.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import FramePackError, quoted
from ..units import BASE, RELEASED
from .pyramid import LEVELS, PATCH, check_size, pyramid, stages_of
from .sigmas import MAX_STEPS, flow_sigmas, helios_sigmas
from .solvers import SOLVERS, Callback, Velocity, helios

STILL_STEPS = 2  # that go along no velocity where CFG-Zero* guides
MAX_STAGES = 5
OWN_LEVELS: dict[Callable, Callable[[int, int], Tensor]] = {helios: helios_sigmas}
_NAME = re.compile(r"pyramid (mid|distilled) ([0-9,]+) x([12])", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pyramid:
    """Steps of each stage, small to large, `first` times as many in a plan's first section.

    A `distilled` model predicts x0. Other models are guided by CFG-Zero* where they are guided by text. Raises
    FramePackError.
    """

    steps: tuple[int, ...] = (2, 2, 2)
    distilled: bool = True
    first: int = 1

    def __post_init__(self) -> None:
        if not 1 <= len(self.steps) <= MAX_STAGES or min(self.steps) < 1 or sum(self.steps) * self.first > MAX_STEPS:
            raise FramePackError(
                f"A pyramid has 1 to {MAX_STAGES} stages, each of 1 step or more; got "
                f"{quoted(list(self.steps))}. Try 2, 2, 2."
            )

    def __str__(self) -> str:
        """Its name, which `solver_named` reads."""
        kind = "distilled" if self.distilled else "mid"
        return f"pyramid {kind} {','.join(map(str, self.steps))} x{self.first}"

    @property
    def zero_star(self) -> bool:
        """Is its guidance CFG-Zero*?"""
        return not self.distilled

    def sigmas(self, shape: Sequence[int], times: int = 1) -> Tensor:
        """The timesteps over 1000 at which the model is called, and 0, for a section ``b c t h w``."""
        found: list[Tensor] = []
        for i, (stage, num) in enumerate(zip(stages_of(len(self.steps)), self.steps, strict=True)):
            tokens = _tokens(shape, len(self.steps) - max(i, 1))
            way = stage.distilled_steps if self.distilled else stage.steps
            found.append(way(num * times, tokens)[0].trunc().float() / LEVELS)
        return torch.cat([*found, torch.zeros(1)])

    def draws(self, shape: Sequence[int]) -> list[tuple[int, ...]]:
        """The shapes of the noise between stages, for a section ``b c t h w``."""
        b, c, t, h, w = shape
        sides = [(h // 2**i // PATCH, w // 2**i // PATCH) for i in reversed(range(len(self.steps) - 1))]
        return [(b * c * t * height * width, PATCH**2) for height, width in sides]

    def __call__(
        self,
        velocity: Velocity,
        x: Tensor,
        sigmas: Tensor,
        callback: Callback | None = None,
        *,
        generator: torch.Generator | None = None,
        guided: bool = False,
    ) -> Tensor:
        """Latents ``b c t h w`` from noise at sigmas[0]; `guided`: by text. Raises FramePackError for other levels."""
        check_size(x, len(self.steps))
        times = self._times(sigmas, x.shape)

        def draw(shape: tuple[int, ...]) -> Tensor:
            return torch.randn(shape, generator=generator)

        return pyramid(
            velocity,
            x / sigmas[0].to(x),
            [times * num for num in self.steps],
            draw,
            distilled=self.distilled,
            still_steps=STILL_STEPS if self.zero_star and guided else 0,
            callback=callback,
        )

    def _times(self, sigmas: Tensor, shape: Sequence[int]) -> int:
        """How many times its own steps the noise levels are."""
        times, rest = divmod(len(sigmas) - 1, sum(self.steps))
        if rest or times not in (1, self.first) or not torch.allclose(sigmas.cpu().float(), self.sigmas(shape, times)):
            raise FramePackError(
                f"The pyramid takes its own {sum(self.steps) + 1} noise levels for latents of "
                f"{shape[2]}x{shape[3]}x{shape[4]}; got {len(sigmas)}: {quoted(sigmas.tolist())}. Disconnect sigmas "
                "from FramePack Section Sampler, or connect those of FramePack Pyramid for this size."
            )
        return times


def _tokens(shape: Sequence[int], halvings: int) -> int:
    """Tokens of a section at a stage's size before it is enlarged, as in the release."""
    return shape[2] * (shape[3] // 2**halvings) * (shape[4] // 2**halvings) // PATCH**2


def own_sigmas(solver: Any, steps: int, shape: Sequence[int], *, first: bool, patch: int = RELEASED.patch) -> Tensor:
    """A solver's own noise levels for a section ``b c t h w``; `first`: of its plan."""
    if isinstance(solver, Pyramid):
        return solver.sigmas(shape, solver.first if first else 1)
    return OWN_LEVELS.get(solver, flow_sigmas)(steps, BASE.num_tokens(*shape[2:], patch))


def own_draws(solver: Any, shape: Sequence[int]) -> list[tuple[int, ...]]:
    """The shapes of what a solver draws for a section ``b c t h w``, beside its noise."""
    return solver.draws(shape) if isinstance(solver, Pyramid) else []


def own_options(solver: Any, generator: torch.Generator | None, guided: bool) -> dict[str, Any]:
    """What a solver takes beside velocity, latents and noise levels."""
    return {"generator": generator, "guided": guided} if isinstance(solver, Pyramid) else {}


def solver_named(name: str) -> Any:
    """A solver by its name. Raises FramePackError for an unknown one."""
    if name in SOLVERS:
        return SOLVERS[name]
    if not (match := _NAME.fullmatch(name)):
        raise FramePackError(f"The solver must be one of: {', '.join(SOLVERS)}, or a pyramid; got {quoted(name)}.")
    steps = tuple(int(num) for num in match[2].split(",") if num)
    return Pyramid(steps=steps, distilled=match[1] == "distilled", first=int(match[3]))


def name_of(solver: Any) -> str | None:
    """The name of a solver; None for an unknown one."""
    if isinstance(solver, Pyramid):
        return str(solver)
    return next((name for name, known in SOLVERS.items() if known is solver), None)
