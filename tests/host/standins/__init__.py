"""Custom nodes for tests: a small vision encoder where the host builds a full one, and another pack's layers."""

from __future__ import annotations

import sys

import comfy.clip_vision
import comfy.ops
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
        for i, name in enumerate(("last_hidden_state", "penultimate_hidden_states")):
            output[name] = torch.randn(1, 729, width, generator=torch.Generator().manual_seed(i))
        return (output,)


class StandInOperations:
    """Loads a model with layers of another pack's own, as a GGUF loader has them, and says what its layers are."""

    RETURN_TYPES = ()
    FUNCTION = "load"
    CATEGORY = "tests"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 - the host's name
        return {"required": {"path": ("STRING", {})}}

    def load(self, path):
        class StandInLinear(comfy.ops.manual_cast.Linear):
            pass

        class Operations(comfy.ops.manual_cast):
            Linear = StandInLinear

        (module,) = [m for n, m in sys.modules.items() if n.endswith("framepack-nodes.nodes.host.loading")]
        model = module.load_model(path, operations=Operations)
        kind = type(model.model.diffusion_model.proj_out).__name__
        return {"ui": {"text": (kind,)}}


NODE_CLASS_MAPPINGS = {"StandInVision": StandInVision, "StandInOperations": StandInOperations}
