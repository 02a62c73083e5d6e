"""Sampling through the host: guider, sampler, progress and previews."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.samplers
import torch
from torch import Tensor

from ...framepack.errors import FramePackError
from ...framepack.models.backbones import backbone_with
from ...framepack.packing.history import ContextGroup
from ...framepack.packing.seeing import Turning
from ...framepack.sampling.guidance import HISTORY, TEXT, Guidance, blank, zero_star
from ...framepack.sampling.staged import Pyramid, own_options
from ...framepack.units import Geometry
from .keys import SOLVER
from .models.packed import PackedModel, history_conds

COMBINE = "sampler_cfg_function"  # the host's model option
OWN = "framepack_own_solver"  # attribute of a sampler function of ours: its solver


def latent_format(model: comfy.model_patcher.ModelPatcher) -> Any:
    """The model's latent format."""
    return model.get_model_object("latent_format")


def geometry(model: comfy.model_patcher.ModelPatcher) -> Geometry:
    """How the model's latents lie in pixels, frames and tokens."""
    return model.model.diffusion_model.spec.geometry


def outside_noise(model: comfy.model_patcher.ModelPatcher) -> tuple[float, float] | None:
    """The least and the most noise that the model gives to latents from outside, if it does."""
    return backbone_with(model.model.diffusion_model.spec).outside_noise


def guidance_with(sampler: Any, guidance: Guidance) -> Guidance:
    """Guidance as a SAMPLER asks for it: CFG-Zero* with a pyramid that is not distilled."""
    solver = solver_of(sampler)
    return replace(guidance, zero_star=isinstance(solver, Pyramid) and solver.zero_star)


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

    def run(model: Any, x: Tensor, sigmas: Tensor, extra_args=None, callback=None, disable=None, **own: Any) -> Tensor:
        extra, ones = extra_args or {}, x.new_ones([x.shape[0]])
        if not own:  # by a stock node
            generator = torch.Generator("cpu").manual_seed((extra.get("seed") or 0) % 2**63)
            own = own_options(solver, generator, False)

        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            return (x - model(x, sigma * ones, **extra)) / sigma

        def report(step: int, x: Tensor, x0: Tensor) -> None:
            if callback is not None:
                levels = {"sigma": sigmas[step], "sigma_hat": sigmas[step]}
                callback({"x": x, "i": step, "denoised": x0, **levels})

        return solver(velocity, x, sigmas, report, **own)

    name = str(solver) if isinstance(solver, Pyramid) else solver.__qualname__
    setattr(run, SOLVER, f"framepack.{name}")
    setattr(run, OWN, solver)
    return comfy.samplers.KSAMPLER(run)


def solver_of(sampler: Any) -> Any:
    """The pack's solver in a SAMPLER; None in another's."""
    return vars(sampler.sampler_function).get(OWN) if isinstance(sampler, comfy.samplers.KSAMPLER) else None


def with_options(sampler: Any, generator: torch.Generator | None, guided: bool) -> Any:
    """A SAMPLER of the pack with what its solver takes for one section; others as they are."""
    options = own_options(solver_of(sampler), generator, guided)
    if not options:
        return sampler
    return comfy.samplers.KSAMPLER(sampler.sampler_function, {**sampler.extra_options, **options})


class ContextWindowsError(FramePackError):
    """A model that cuts what it samples into windows, where sections are sampled."""


def zero_star_combined(args: Mapping[str, Any]) -> Tensor:
    """CFG-Zero* in the host's terms: latents less what is denoised, by which both passes are told."""
    whole, other = args["cond"], args["uncond"]
    other = other * zero_star(whole, other)
    return other + args["cond_scale"] * (whole - other)


class SectionGuider(comfy.samplers.CFGGuider):
    """The host's guider, with history guidance where text guidance does not act.

    `conds` are conditionings by name: positive, negative, and blank, the negative one with a blank history. `turning`
    is the history, which may change after the first steps.
    """

    def __init__(
        self, model: comfy.model_patcher.ModelPatcher, guidance: Guidance, conds: dict[str, list], turning: Turning
    ):
        super().__init__(model)
        self.guidance, self.sees, self.turning = guidance, "blank" in conds, turning
        self.inner_set_conds(conds)

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: Any = None, seed: int | None = None) -> Tensor:
        """Denoised latents at the noise level `timestep` ``b``."""
        if self.turning.turns(float(timestep[0])):
            self._turn(self.turning.history)
        led_from, scale = self.guidance.at(float(timestep[0]), self.sees)
        positive, other = self.conds["positive"], self.conds["blank" if led_from == HISTORY else "negative"]
        options = model_options or {}
        if self.guidance.zero_star and led_from == TEXT:
            options = {**options, COMBINE: zero_star_combined}
        x0 = comfy.samplers.sampling_function(self.inner_model, x, timestep, other, positive, scale, options, seed)
        self.turning.saw(x0)
        return x0

    def _turn(self, history: list[ContextGroup]) -> None:
        """Put another history, of the same kernels, into conditionings that the host has prepared."""
        for name, entries in self.conds.items():
            groups = blank(history) if name == "blank" else history
            for entry in entries:
                positions, _, causal = entry["model_conds"]["framepack_layout"].cond
                entry["model_conds"] |= history_conds(positions, groups, causal)


def sample(
    guider: SectionGuider,
    noise: Tensor,
    sigmas: Tensor,
    sampler: Any,
    seed: int,
    callback: Callable[..., None] | None,
) -> Tensor:
    """The host's sampling from pure noise: raw latents like noise, ``b c t h w``.

    Raises ContextWindowsError: the host would cut a section's positions and history, which belong to all of it.
    """
    if guider.model_patcher.model_options.get("context_handler") is not None:
        raise ContextWindowsError(
            "The model has context windows, and FramePack Section Sampler samples each section as one window of "
            f"{noise.shape[2]} latent frames. Remove the Context Windows node before FramePack Section Sampler."
        )
    made = guider.sample(noise, torch.zeros_like(noise), sampler, sigmas, callback=callback, seed=seed)
    return made.to(comfy.model_management.intermediate_device())
