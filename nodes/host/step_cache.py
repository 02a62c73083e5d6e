"""The pack's step cache as wrappers around each of the host's runs, and around the model within it."""

from __future__ import annotations

import logging
from typing import Any

import comfy.model_patcher
import comfy.patcher_extension
from torch import Tensor

from ...framepack.sampling.step_cache import StepCache

log = logging.getLogger(__name__)
KEY = "framepack_step_cache"
RUN, MODEL = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, comfy.patcher_extension.WrappersMP.APPLY_MODEL


def with_step_cache(model: comfy.model_patcher.ModelPatcher, threshold: float) -> comfy.model_patcher.ModelPatcher:
    """A copy of a MODEL, each of whose runs has a cache of its own. Raises FramePackError for a bad threshold."""
    StepCache(threshold, ())  # said here, not when a section is sampled

    def run(executor: Any, noise: Tensor, latent: Tensor, sampler: Any, sigmas: Tensor, *args: Any, **kwargs: Any):
        guider = executor.class_obj
        options, cache = guider.model_options, StepCache(threshold, sigmas.tolist())
        inner = {**options.get("transformer_options", {}), KEY: cache}
        guider.model_options = {**options, "transformer_options": inner}
        try:
            return executor(noise, latent, sampler, sigmas, *args, **kwargs)
        finally:
            guider.model_options = options
            if cache.skipped:
                log.info("step cache: %d passes computed, %d skipped", cache.computed, cache.skipped)

    copy = model.clone()
    for kind, wrapper in ((RUN, run), (MODEL, _apply)):
        copy.remove_wrappers_with_key(kind, KEY)  # one at a time
        copy.add_wrapper_with_key(kind, KEY, wrapper)
    copy.set_attachments(KEY, threshold)
    return copy


def _apply(
    executor: Any, x: Tensor, sigma: Tensor, concat: Any, cross: Any, control: Any, options: dict, **kwargs: Any
) -> Tensor:
    """The model's denoised latents, float32, of conditionings stacked in the batch; each is a pass of its own."""

    def compute() -> Tensor:
        return executor(x, sigma, concat, cross, control, options, **kwargs)

    cache: StepCache | None = options.get(KEY)
    if cache is None:  # called outside a run
        return compute()
    return cache.run(options.get("uuids") or options["cond_or_uncond"], float(sigma[0]), compute, tuple(x.shape[1:]))
