"""The pack's step cache as a wrapper around each of the host's runs."""

from __future__ import annotations

import logging
from typing import Any

import comfy.model_patcher
import comfy.patcher_extension

from ...framepack.sampling.step_cache import StepCache

log = logging.getLogger(__name__)
KEY = "framepack_step_cache"


def with_step_cache(model: comfy.model_patcher.ModelPatcher, threshold: float) -> comfy.model_patcher.ModelPatcher:
    """A copy of a MODEL, each of whose runs has a cache of its own."""

    def run(executor: Any, *args: Any, **kwargs: Any) -> Any:
        guider = executor.class_obj
        options, cache = guider.model_options, StepCache(threshold)
        inner = {**options.get("transformer_options", {}), KEY: cache}
        guider.model_options = {**options, "transformer_options": inner}
        try:
            return executor(*args, **kwargs)
        finally:
            guider.model_options = options
            if cache.skipped:
                log.info("step cache: %d passes computed, %d skipped", cache.computed, cache.skipped)

    copy = model.clone()
    copy.remove_wrappers_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, KEY)  # one at a time
    copy.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, KEY, run)
    copy.set_attachments(KEY, threshold)
    return copy
