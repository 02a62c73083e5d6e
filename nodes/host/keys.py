"""What determines a section on the host's side: the model with all that is done to it, sampler, conditioning.

Only what is known to be complete counts; anything else raises UnkeyableError, and the section is not stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import comfy.hooks
import comfy.model_patcher
import comfy.model_sampling
import comfy.samplers
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.weight_adapter import WeightAdapterBase
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY, TORCH_COMPILE_KWARGS

from ...framepack.store.digest import UnkeyableError, digest
from .aside import KEY as CONSTANTS
from .crews import KEY as PARALLEL
from .loading import IDENTITY
from .step_cache import KEY as STEP_CACHE

FORMAT = 2  # raise it when the same inputs begin to give other latents
SOLVER = "framepack_solver"  # attribute of a sampler function of ours: its solver's name
# What may be done to a patcher besides patches; each must be empty.
EMPTY = ("hook_patches", "injections", "additional_models", "weight_wrapper_patches", "current_hooks")
OPTIONS = ("disable_cfg1_optimization",)  # model options that are plain values


def model_parts(model: comfy.model_patcher.ModelPatcher) -> dict[str, Any]:
    """A MODEL's identity, patches, options and precision. Raises UnkeyableError."""
    identity = model.get_attachment(IDENTITY)
    if identity is None:
        raise UnkeyableError("the model does not come from FramePack Load Model")
    for name in EMPTY:
        if _holds(getattr(model, name)):
            raise UnkeyableError(f"the model has {name.replace('_', ' ')}")
    if _holds([key for held in model.callbacks.values() for key, given in held.items() if given and key != CONSTANTS]):
        raise UnkeyableError("the model has callbacks")
    dit, operations = model.model.diffusion_model, model.model.model_config.custom_operations
    return {
        "identity": identity,
        "patches": _patches(model.patches_uuid, _Held(model.patches)),
        "objects": {name: _object(name, value) for name, value in model.object_patches.items()},
        "options": _options(model.model_options),
        "wrappers": _wrappers(model),
        "dtypes": [dit.dtype, model.model.manual_cast_dtype, model.load_device.type],
        "layers": None if operations is None else operations.__qualname__,
        "attention": [dit.attention.__qualname__, optimized_attention.__qualname__],
        "versions": [FORMAT, torch.__version__],
    }


def sampler_parts(sampler: Any) -> dict[str, Any]:
    """A SAMPLER by its function's name and its options. Raises UnkeyableError."""
    if type(sampler) is not comfy.samplers.KSAMPLER:
        raise UnkeyableError(f"the sampler is a {type(sampler).__name__}")
    function = sampler.sampler_function
    name = function.__dict__.get(SOLVER, f"{function.__module__}.{function.__qualname__}")
    if "<" in name:
        raise UnkeyableError(f"the sampler's function {name} has no name of its own")
    return {"function": name, "options": sampler.extra_options, "inpaint": sampler.inpaint_options}


def vision_parts(vision: Any) -> dict[str, Any] | None:
    """A vision encoder's output by its tensors."""
    return None if vision is None else dict(vars(vision))


def conditioning_parts(conditioning: Any) -> list[Any] | None:
    """A conditioning with its hooks told by their contents. Raises UnkeyableError."""
    if conditioning is None:
        return None
    return [
        [tensor, {k: _hooks(v) if isinstance(v, comfy.hooks.HookGroup) else v for k, v in options.items()}]
        for tensor, options in conditioning
    ]


def _hooks(group: comfy.hooks.HookGroup) -> list[dict[str, Any]]:
    """Hooks that patch weights, as LoRA hooks do, are the only ones whose meaning is known."""
    if strange := [type(hook).__name__ for hook in group.hooks if type(hook) is not comfy.hooks.WeightHook]:
        raise UnkeyableError(f"the conditioning has a {strange[0]}")
    return [
        {
            "weights": hook.weights,
            "strength": hook._strength_model,
            "loaded": hook.need_weight_init,
            "frames": [[f.strength, f.start_percent, f.guarantee_steps] for f in hook.hook_keyframe.keyframes],
        }
        for hook in group.hooks
    ]


class _Held:
    """Holds a value beside a cache's key and does not count as part of it."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=8)
def _patches(number: Any, patches: _Held) -> str:
    """A digest of the weights' patches with their strengths; `number` is the host's for this set of patches."""
    return digest({"patches": {key: [_patch(key, *p) for p in held] for key, held in patches.value.items()}})


def _patch(key: str, strength: float, value: Any, strength_model: float, offset: Any, function: Any) -> list[Any]:
    if function is not None or not isinstance(value, WeightAdapterBase):
        raise UnkeyableError(f"the patch of {key} is no LoRA's (a merge, or another pack's)")
    return [strength, strength_model, offset, value.name, list(value.weights)]


def _object(name: str, value: Any) -> dict[str, Any]:
    """The noise levels are the only object patch whose meaning is known."""
    if name != "model_sampling":
        raise UnkeyableError(f"the model's {name} has been replaced")
    kinds = [kind.__name__ for kind in type(value).__mro__ if kind.__module__ == comfy.model_sampling.__name__]
    plain = {k: v for k, v in vars(value).items() if not k.startswith("_") and isinstance(v, bool | int | float | str)}
    return {"kinds": kinds, "values": plain, "buffers": dict(value.named_buffers())}


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    held = {name: value for name, value in options.items() if _holds(value)}
    compiled = held.pop(TORCH_COMPILE_KWARGS, None)
    inner = {name: value for name, value in held.pop("transformer_options", {}).items() if _holds(value)}
    if strange := [*inner, *(name for name in held if name not in OPTIONS)]:
        raise UnkeyableError(f"the model has the option {strange[0]}")
    return held | {"compiled": _compiled(compiled)}


def _compiled(options: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """How TorchCompileModel compiles: it rounds in other places. What guards a recompilation changes no number."""
    if options is None:
        return None
    inner = {name: value for name, value in (options["options"] or {}).items() if name != "guard_filter_fn"}
    return {**options, "options": inner}


def _wrappers(model: comfy.model_patcher.ModelPatcher) -> dict[str, Any]:
    """The pack's step cache and processes, and the host's TorchCompileModel: no others' meaning is known."""
    keys = {key for held in model.wrappers.values() for key, functions in held.items() if functions}
    if strange := sorted(map(str, keys - {STEP_CACHE, COMPILE_KEY, PARALLEL})):
        raise UnkeyableError(f"the model is wrapped by {strange[0]}")
    shared = {PARALLEL: model.get_attachment(PARALLEL)} if PARALLEL in keys else {}
    return {STEP_CACHE: model.get_attachment(STEP_CACHE), **shared}


def _holds(value: Any) -> bool:
    """Is there anything in it, however deep?"""
    if isinstance(value, Mapping):
        return any(map(_holds, value.values()))
    if isinstance(value, list | tuple | set):
        return bool(value)
    return value is not None and value is not False
