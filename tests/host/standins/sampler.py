"""Samplers that fail."""

from __future__ import annotations

import os

import comfy.samplers
import torch
from comfy.k_diffusion.sampling import sample_euler

calls = 0


def euler_until_memory_ends(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Euler; the call whose number FRAMEPACK_TEST_FAILS gives runs out of memory."""
    global calls
    calls += 1
    if os.environ.get("FRAMEPACK_TEST_FAILS") == str(calls):
        raise torch.OutOfMemoryError("a stand-in for a full device")
    return sample_euler(model, x, sigmas, extra_args=extra_args, callback=callback, disable=disable)


def euler_to_nan(model, x, sigmas, **options):
    """Euler; one value of the result is not a number."""
    made = sample_euler(model, x, sigmas, **options)
    made[..., 0, 0] = torch.nan
    return made


class StandInSampler:
    """A SAMPLER of either function."""

    RETURN_TYPES = ("SAMPLER",)
    FUNCTION = "get"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 - the host's name
        return {"required": {}, "optional": {"to_nan": ("BOOLEAN", {"default": False})}}

    def get(self, to_nan=False):
        return (comfy.samplers.KSAMPLER(euler_to_nan if to_nan else euler_until_memory_ends),)
