"""Sampling through the host: guider, sampler, progress and previews."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.samplers
import torch
from torch import Tensor

from ...framepack.errors import FramePackError
from ...framepack.sampling.guidance import HISTORY, Guidance
from ...framepack.units import Geometry
from .keys import SOLVER
from .models.packed import PackedModel


def latent_format(model: comfy.model_patcher.ModelPatcher) -> Any:
    """The model's latent format."""
    return model.get_model_object("latent_format")


def geometry(model: comfy.model_patcher.ModelPatcher) -> Geometry:
    """How the model's latents lie in pixels, frames and tokens."""
    return model.model.diffusion_model.spec.geometry


def is_framepack(model: Any) -> bool:
    """Is it a MODEL of ours?"""
    return isinstance(model, comfy.model_patcher.ModelPatcher) and isinstance(model.model, PackedModel)


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


class ContextWindowsError(FramePackError):
    """A model that cuts what it samples into windows, where sections are sampled."""


class SectionGuider(comfy.samplers.CFGGuider):
    """The host's guider, with history guidance where text guidance does not act.

    `conds` are conditionings by name: positive, negative, and blank, the negative one with a blank history.
    """

    def __init__(self, model: comfy.model_patcher.ModelPatcher, guidance: Guidance, conds: dict[str, list]):
        super().__init__(model)
        self.guidance, self.sees = guidance, "blank" in conds
        self.inner_set_conds(conds)

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: Any = None, seed: int | None = None) -> Tensor:
        """Denoised latents at the noise level `timestep` ``b``."""
        led_from, scale = self.guidance.at(float(timestep[0]), self.sees)
        positive, other = self.conds["positive"], self.conds["blank" if led_from == HISTORY else "negative"]
        options = model_options or {}
        return comfy.samplers.sampling_function(self.inner_model, x, timestep, other, positive, scale, options, seed)


def sample(
    model: comfy.model_patcher.ModelPatcher,
    noise: Tensor,
    sigmas: Tensor,
    sampler: Any,
    conds: dict[str, list],
    guidance: Guidance,
    seed: int,
    callback: Callable[..., None] | None,
) -> Tensor:
    """The host's sampling from pure noise: raw latents like noise, ``b c t h w``; `conds` as SectionGuider's.

    Raises ContextWindowsError: the host would cut a section's positions and history, which belong to all of it.
    """
    if model.model_options.get("context_handler") is not None:
        raise ContextWindowsError(
            "The model has context windows, and FramePack Section Sampler samples each section as one window of "
            f"{noise.shape[2]} latent frames. Remove the Context Windows node before FramePack Section Sampler."
        )
    guider, blank = SectionGuider(model, guidance, conds), torch.zeros_like(noise)
    made = guider.sample(noise, blank, sampler, sigmas, callback=callback, seed=seed)
    return made.to(comfy.model_management.intermediate_device())
