"""A sampler that runs out of memory."""

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


class StandInSampler:
    """A SAMPLER of that function."""

    RETURN_TYPES = ("SAMPLER",)
    FUNCTION = "get"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 - the host's name
        return {"required": {}}

    def get(self):
        return (comfy.samplers.KSAMPLER(euler_until_memory_ends),)
