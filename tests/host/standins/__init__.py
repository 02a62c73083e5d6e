"""Custom nodes for tests: a small vision encoder where the host builds a full one, and another pack's layers."""

from __future__ import annotations

import sys

import comfy.clip_vision
import comfy.model_management
import comfy.ops
import comfy.patcher_extension
import psutil
import torch
from comfy_api.torch_helpers import set_torch_compile_wrapper

from .sampler import StandInSampler
from .vae import StandInClips, StandInNewerVAE, StandInNoise, StandInVAE


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


class StandInList:
    """A list of two images, whatever their sizes."""

    RETURN_TYPES = ("IMAGE",)
    OUTPUT_IS_LIST = (True,)
    FUNCTION = "list"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 - the host's name
        return {"required": {"first": ("IMAGE",), "second": ("IMAGE",)}}

    def list(self, first, second):
        return ([first, second],)


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


class StandInWithoutFP8:
    """Loads a model as on a device that cannot hold float8, and says in which precision."""

    RETURN_TYPES = ()
    FUNCTION = "load"
    CATEGORY = "tests"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 - the host's name
        return {"required": {"path": ("STRING", {})}}

    def load(self, path):
        management = comfy.model_management
        (module,) = [m for n, m in sys.modules.items() if n.endswith("framepack-nodes.nodes.host.loading")]
        true = management.supports_cast
        management.supports_cast = lambda device, dtype: "float8" not in str(dtype) and true(device, dtype)
        try:
            model = module.load_model(path)
        finally:
            management.supports_cast = true
        held = {str(p.dtype) for p in model.model.diffusion_model.parameters()}
        return {"ui": {"text": (f"{module.describe(model, 'it')} {held}",)}}


class StandInModel:
    """A MODEL that keeps nothing over steps, or all of whose layers the host takes off the device before it samples."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "change"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 - the host's name
        return {"required": {"model": ("MODEL",), "plain": ("BOOLEAN", {}), "offload": ("BOOLEAN", {})}}

    def change(self, model, plain, offload):
        model = model.clone()
        if plain:
            model.remove_attachments("framepack_constants")
        if offload:
            on_load = comfy.patcher_extension.CallbacksMP.ON_PRE_RUN
            model.add_callback_with_key(on_load, "tests", lambda patcher: patcher.partially_unload("cpu", 1e32))
        return (model,)


class StandInCompiled:
    """A MODEL as TorchCompileModel makes it, by a back end that needs no compiler."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "compile"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 - the host's name
        return {"required": {"model": ("MODEL",)}}

    def compile(self, model):
        model = model.clone()
        set_torch_compile_wrapper(
            model=model, backend="eager", options={"guard_filter_fn": lambda found: [True] * len(found)}
        )
        return (model,)


class StandInResident:
    """What the host counts as the model's size on the device, and its parameters' bytes."""

    RETURN_TYPES = ()
    FUNCTION = "count"
    CATEGORY = "tests"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 - the host's name
        return {"required": {"model": ("MODEL",)}}

    def count(self, model):
        held = sum(p.numel() * p.element_size() for p in model.model.diffusion_model.parameters())
        return {"ui": {"text": (str(model.clone().model_size()), str(held))}}


class StandInKey:
    """A digest of all by which the section store knows a model."""

    RETURN_TYPES = ()
    FUNCTION = "tell"
    CATEGORY = "tests"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 - the host's name
        return {"required": {"model": ("MODEL",)}}

    def tell(self, model):
        (keys,) = [m for n, m in sys.modules.items() if n.endswith("framepack-nodes.nodes.host.keys")]
        return {"ui": {"text": (keys.digest(keys.model_parts(model)),)}}


class StandInPackage:
    """Hides an installed package, or shows it again."""

    RETURN_TYPES = ()
    FUNCTION = "hide"
    CATEGORY = "tests"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 - the host's name
        return {"required": {"name": ("STRING", {}), "missing": ("BOOLEAN", {})}}

    def hide(self, name, missing):
        if missing:
            sys.modules[name] = None
        else:
            sys.modules.pop(name, None)
        return {}


class StandInMemory:
    """Passes a model on, and lets only so many bytes be had from then on; 0 tells the truth again."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "limit"
    CATEGORY = "tests"
    TRUE = staticmethod(comfy.model_management.get_free_memory)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 - the host's name
        return {"required": {"model": ("MODEL",), "bytes": ("INT", {"default": 0, "max": 2**40})}}

    def limit(self, model, bytes):
        def free(device=None, torch_free_too=False):
            held = [m for m in comfy.model_management.current_loaded_models if m.device == device]
            left = bytes - sum(m.model_loaded_memory() for m in held) - psutil.swap_memory().free
            return (left, left) if torch_free_too else left

        comfy.model_management.get_free_memory = free if bytes else self.TRUE
        return (model,)


NODES = (
    *(
        StandInVision,
        StandInList,
        StandInOperations,
        StandInWithoutFP8,
        StandInModel,
        StandInCompiled,
        StandInResident,
        StandInKey,
        StandInPackage,
        StandInMemory,
    ),
    *(StandInVAE, StandInClips, StandInNewerVAE, StandInNoise, StandInSampler),
)
NODE_CLASS_MAPPINGS = {node.__name__: node for node in NODES}
