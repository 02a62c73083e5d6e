"""Solvers for flow matching: Euler, and UniPC (Zhao et al. 2023) as the released models use it.

x = (1 - sigma) x0 + sigma noise; the model gives the velocity noise - x0. One model call per step.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]  # x, sigma (0-dim) -> noise - x0
Callback = Callable[[int, Tensor, Tensor], None]  # step, x, x0


def euler(velocity: Velocity, x: Tensor, sigmas: Tensor, callback: Callback | None = None) -> Tensor:
    """Straight steps along the velocity; x and the result are shaped alike."""
    for i, (sigma, below) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        v = velocity(x, sigma)
        if callback:
            callback(i, x, x - sigma * v)
        x = x + (below - sigma) * v
    return x


def unipc(velocity: Velocity, x: Tensor, sigmas: Tensor, callback: Callback | None = None, order: int = 3) -> Tensor:
    """Predictor-corrector of B_h = -h (bh1) on x0 over lambda = -log sigma; the last x0 is the result.

    The order rises from 1 over the first steps, to min(order, steps - 1).
    """
    scale = sigmas.tolist()  # numbers, so that devices without float64 run the same steps
    order = min(order, max(len(scale) - 2, 1))
    levels, guesses = [], []  # of the steps so far, oldest first
    before = x
    for i, (sigma, below) in enumerate(zip(scale[:-1], scale[1:], strict=True)):
        x0 = x - sigma * velocity(x, sigmas[i])
        if i > 0:  # correct the last step with what the model says at its end
            known = min(order, i)
            x = _multistep(before, levels[-known:], guesses[-known:], sigma, x0)
        levels, guesses = [*levels, sigma][-order:], [*guesses, x0][-order:]
        if callback:
            callback(i, x, x0)
        before = x
        if below == 0:
            return x0
        x = _multistep(x, levels, guesses, below, None)
    return x


def _multistep(x: Tensor, levels: list[float], guesses: list[Tensor], to: float, at_end: Tensor | None) -> Tensor:
    """One step from the last of `levels` to the level `to`, from x0 at the levels and, to correct, at its end."""
    start, newest = levels[-1], guesses[-1]
    h = math.log(start / to)  # step in lambda
    base = to / start * x - math.expm1(-h) * newest  # exact for a constant x0
    ratios = [math.log(start / level) / h for level in reversed(levels[:-1])]
    slopes = [(g - newest) / r for g, r in zip(reversed(guesses[:-1]), ratios, strict=True)]
    if at_end is not None:
        ratios.append(1.0)
        slopes.append(at_end - newest)
    for weight, slope in zip(_weights(ratios, -h), slopes, strict=True):
        base = base + h * weight * slope
    return base


def _weights(ratios: list[float], step: float) -> list[float]:
    """Weights of the slopes that match the expansion of the exact integral; one slope has a half, as published."""
    if len(ratios) < 2:
        return [0.5] * len(ratios)
    phi, factorial, rhs = math.expm1(step) / step - 1, 1.0, []
    for n in range(1, len(ratios) + 1):
        rhs.append(phi * factorial / step)
        factorial *= n + 1
        phi = phi / step - 1 / factorial
    rows = [[ratio**n for ratio in ratios] for n in range(len(ratios))]
    return torch.linalg.solve(torch.tensor(rows, dtype=torch.float64), torch.tensor(rhs, dtype=torch.float64)).tolist()


SOLVERS = {"unipc": unipc, "euler": euler}
