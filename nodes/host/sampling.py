"""Sampling through the host: guider, sampler, progress and previews."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.model_patcher
import comfy.sample
import comfy.samplers
import torch
from torch import Tensor

from .keys import SOLVER
from .models.packed import PackedModel


def latent_format(model: comfy.model_patcher.ModelPatcher) -> Any:
    """The model's latent format."""
    return model.get_model_object("latent_format")


def is_framepack(model: comfy.model_patcher.ModelPatcher) -> bool:
    """Is a MODEL one of ours?"""
    return isinstance(model.model, PackedModel)


def with_values(conditioning: list, values: dict[str, Any]) -> list:
    """A conditioning with values added to every entry."""
    return [[tensor, {**options, **values}] for tensor, options in conditioning]


def zeroed(conditioning: list) -> list:
    """What ConditioningZeroOut makes of a conditioning."""
    return [
        [
            torch.zeros_like(c),
            o | {"pooled_output": torch.zeros_like(o["pooled_output"])} if "pooled_output" in o else o,
        ]
        for c, o in conditioning
    ]


def sampler_named(name: str) -> Any:
    """One of the host's samplers."""
    return comfy.samplers.sampler_object(name)


def sampler_of(solver: Callable[..., Tensor]) -> Any:
    """SAMPLER from one of our solvers (velocity, x, sigmas, callback)."""

    def run(model: Any, x: Tensor, sigmas: Tensor, extra_args=None, callback=None, disable=None) -> Tensor:
        extra, ones = extra_args or {}, x.new_ones([x.shape[0]])

        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            return (x - model(x, sigma * ones, **extra)) / sigma

        def report(step: int, x: Tensor, x0: Tensor) -> None:
            if callback is not None:
                levels = {"sigma": sigmas[step], "sigma_hat": sigmas[step]}
                callback({"x": x, "i": step, "denoised": x0, **levels})

        return solver(velocity, x, sigmas, report)

    setattr(run, SOLVER, f"framepack.{solver.__qualname__}")
    return comfy.samplers.KSAMPLER(run)


def sample(
    model: comfy.model_patcher.ModelPatcher,
    noise: Tensor,
    sigmas: Tensor,
    sampler: Any,
    positive: list,
    negative: list,
    cfg: float,
    seed: int,
    callback: Callable[..., None] | None,
) -> Tensor:
    """The host's sampling from pure noise: raw latents like noise, ``b c t h w``."""
    blank = torch.zeros_like(noise)
    return comfy.sample.sample_custom(
        model, noise, cfg, sampler, sigmas, positive, negative, blank, callback=callback, seed=seed
    )
