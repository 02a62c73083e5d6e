"""Solvers for flow matching: Euler, and UniPC (Zhao et al. 2023) as the released models use it.

x = (1 - sigma) x0 + sigma noise; the model gives the velocity noise - x0. One model call per step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

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


class Form(NamedTuple):
    """How UniPC sees a noise level: the share of the signal, lambda, and B_h of a step -h."""

    signal: Callable[[float], float]
    place: Callable[[float], float]
    weight: Callable[[float], float]


SIGMA = Form(lambda sigma: 1.0, lambda sigma: -math.log(sigma), lambda step: step)  # bh1 over -log sigma
SNR = Form(lambda sigma: 1 - sigma, lambda sigma: math.log(max(1 - sigma, 1e-8) / sigma), math.expm1)  # bh2


def unipc(
    velocity: Velocity,
    x: Tensor,
    sigmas: Tensor,
    callback: Callback | None = None,
    order: int = 3,
    *,
    form: Form = SIGMA,
) -> Tensor:
    """Predictor-corrector on x0; the last x0 is the result.

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
            x = _multistep(before, levels[-known:], guesses[-known:], sigma, x0, form)
        levels, guesses = [*levels, sigma][-order:], [*guesses, x0][-order:]
        if callback:
            callback(i, x, x0)
        before = x
        if below == 0:
            return x0
        x = _multistep(x, levels, guesses, below, None, form)
    return x


def _multistep(
    x: Tensor, levels: list[float], guesses: list[Tensor], to: float, at_end: Tensor | None, form: Form
) -> Tensor:
    """One step from the last of `levels` to the level `to`, from x0 at the levels and, to correct, at its end."""
    start, newest = levels[-1], guesses[-1]
    h, signal = form.place(to) - form.place(start), form.signal(to)  # h: the step in lambda
    base = to / start * x - signal * math.expm1(-h) * newest  # exact for a constant x0
    ratios = [(form.place(level) - form.place(start)) / h for level in reversed(levels[:-1])]
    slopes = [(g - newest) / r for g, r in zip(reversed(guesses[:-1]), ratios, strict=True)]
    if at_end is not None:
        ratios.append(1.0)
        slopes.append(at_end - newest)
    scale = form.weight(-h)
    for weight, slope in zip(_weights(ratios, -h, scale), slopes, strict=True):
        base = base - signal * scale * weight * slope
    return base


def _weights(ratios: list[float], step: float, scale: float) -> list[float]:
    """Weights of the slopes that match the expansion of the exact integral; one slope has a half, as published."""
    if len(ratios) < 2:
        return [0.5] * len(ratios)
    phi, factorial, rhs = math.expm1(step) / step - 1, 1.0, []
    for n in range(1, len(ratios) + 1):
        rhs.append(phi * factorial / scale)
        factorial *= n + 1
        phi = phi / step - 1 / factorial
    rows = [[ratio**n for ratio in ratios] for n in range(len(ratios))]
    return torch.linalg.solve(torch.tensor(rows, dtype=torch.float64), torch.tensor(rhs, dtype=torch.float64)).tolist()


def helios(velocity: Velocity, x: Tensor, sigmas: Tensor, callback: Callback | None = None) -> Tensor:
    """UniPC as Helios uses it: of order 2 over log SNR, from whole noise although sigmas[0] is below 1."""
    return unipc(velocity, x / sigmas[0].to(x), sigmas, callback, order=2, form=SNR)


SOLVERS = {"unipc": unipc, "euler": euler, "helios": helios}
