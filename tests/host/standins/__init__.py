"""A custom node for tests: what a vision encoder gives, small and random, where the host builds one at full size."""

from __future__ import annotations

import comfy.clip_vision
import torch


class StandInVision:
    """A CLIP_VISION_OUTPUT of the released model's number of tokens."""

    RETURN_TYPES = ("CLIP_VISION_OUTPUT",)
    FUNCTION = "encode"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 - the host's name
        return {"required": {"image": ("IMAGE",), "width": ("INT", {"default": 24})}}

    def encode(self, image, width):
        output = comfy.clip_vision.Output()
        output["last_hidden_state"] = torch.randn(1, 729, width, generator=torch.Generator().manual_seed(0))
        return (output,)


NODE_CLASS_MAPPINGS = {"StandInVision": StandInVision}
