"""Noise levels of flow matching with the dynamic shift of Flux (paper section 4.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import FramePackError, quoted

MAX_STEPS = 1000


def check_sigmas(sigmas: Tensor) -> None:
    """Raises FramePackError for noise levels that take no step, or are not finite and 0 or more."""
    if sigmas.ndim != 1 or len(sigmas) < 2 or not torch.isfinite(sigmas).all() or sigmas.min() < 0:
        raise FramePackError(
            f"sigmas must be 2 noise levels or more, each 0 or more; got {quoted(sigmas.tolist())}. Connect "
            "FramePackSigmas, or disconnect sigmas to use the model's own."
        )


def linear_shift(num_tokens: int) -> float:
    """mu, which is linear in the k1 tokens of a section: 0.5 for 256, 1.15 for 4096."""
    return 0.5 + (num_tokens - 256) * 0.65 / 3840


def dynamic_shift(num_tokens: int) -> float:
    """The shift e^mu of so many k1 tokens in a section, at most 7."""
    return math.exp(min(linear_shift(num_tokens), math.log(7)))


def flow_sigmas(steps: int, num_tokens: int) -> Tensor:
    """Noise levels ``steps + 1`` from 1 to 0, float32. Raises FramePackError for no or too many steps."""
    _check(steps)
    return _shifted(torch.linspace(1, 0, steps + 1, dtype=torch.float64), dynamic_shift(num_tokens))


def helios_sigmas(steps: int, num_tokens: int) -> Tensor:
    """Noise levels ``steps + 1`` of Helios' base model, from 0.999 before the shift to 0, float32.

    Its shift is mu itself (arXiv 2603.04379). Raises FramePackError for no or too many steps.
    """
    _check(steps)
    return _shifted(torch.linspace(0.999, 0, steps + 1, dtype=torch.float64), linear_shift(num_tokens))


def _check(steps: int) -> None:
    if not 1 <= steps <= MAX_STEPS:
        raise FramePackError(f"Steps must be 1 to {MAX_STEPS}; got {steps}. Try 25.")


def _shifted(t: Tensor, shift: float) -> Tensor:
    return (shift * t / (1 + (shift - 1) * t)).float()
