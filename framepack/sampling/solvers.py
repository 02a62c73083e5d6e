"""Solvers for flow matching: Euler, and UniPC (Zhao et al. 2023) as the released models use it.

x = (1 - sigma) x0 + sigma noise; the model gives the velocity noise - x0. One model call per step.
"""

from __future__ import annotations

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
    steps = len(sigmas) - 1
    order = min(order, max(steps - 1, 1))
    levels, guesses = [], []  # of the steps so far, oldest first
    before = x
    for i in range(steps):
        x0 = x - sigmas[i] * velocity(x, sigmas[i])
        if i > 0:  # correct the last step with what the model says at its end
            known = min(order, i)
            x = _multistep(before, levels[-known:], guesses[-known:], sigmas[i], x0)
        levels, guesses = [*levels[1 - order :], sigmas[i]][-order:], [*guesses[1 - order :], x0][-order:]
        if callback:
            callback(i, x, x0)
        before = x
        if sigmas[i + 1] == 0:
            return x0
        known = min(order, i + 1)
        x = _multistep(x, levels[-known:], guesses[-known:], sigmas[i + 1], None)
    return x


def _multistep(x: Tensor, levels: list[Tensor], guesses: list[Tensor], to: Tensor, at_end: Tensor | None) -> Tensor:
    """One step from the last of `levels` to the level `to`, from x0 at the levels and, to correct, at its end."""
    start, newest = levels[-1], guesses[-1]
    h = torch.log(start / to).double()  # step in lambda
    step = -h
    base = to / start * x - torch.expm1(step).to(x) * newest  # exact for a constant x0
    ratios = [torch.log(start / level).double() / h for level in reversed(levels[:-1])]
    slopes = [(g - newest) / r.to(x) for g, r in zip(reversed(guesses[:-1]), ratios, strict=True)]
    if at_end is not None:
        ratios.append(torch.ones_like(h))
        slopes.append(at_end - newest)
    if not slopes:
        return base
    weights = _weights(torch.stack(ratios), step, halve=len(slopes) == 1)
    return base - sum((w * step).to(x) * s for w, s in zip(weights, slopes, strict=True))


def _weights(ratios: Tensor, step: Tensor, halve: bool) -> Tensor:
    """Solve for the weights of the slopes that match the expansion of the exact integral."""
    if halve:
        return torch.full((1,), 0.5, dtype=torch.float64)
    phi, factorial, rhs = torch.expm1(step) / step - 1, 1.0, []
    for n in range(1, len(ratios) + 1):
        rhs.append(phi * factorial / step)
        factorial *= n + 1
        phi = phi / step - 1 / factorial
    rows = torch.stack([ratios**n for n in range(len(ratios))])
    return torch.linalg.solve(rows, torch.stack(rhs))


SOLVERS = {"unipc": unipc, "euler": euler}
