"""A MODEL whose forward passes are done by several processes, which share each section."""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Mapping
from typing import Any

import comfy.model_patcher
import comfy.patcher_extension
import torch
from torch import Tensor

from ...framepack.errors import FramePackError
from ...framepack.models.memo import constants_of
from ...framepack.packing.history import ContextGroup
from ...framepack.parallel.crew import Crew, CrewSpec
from .interrupt import poll

log = logging.getLogger(__name__)
KEY = "framepack_parallel"  # of wrappers and attachments
FORWARD = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}

_running: list[Crew] = []  # one at most: a crew holds the model once for each process


def with_crew(
    model: comfy.model_patcher.ModelPatcher, path: str, processes: int, device: str, attention: str
) -> comfy.model_patcher.ModelPatcher:
    """A copy of a MODEL that processes on `device` do the work of. Raises FramePackError where they cannot."""
    gpus = torch.cuda.device_count()
    on_gpu = device == "cuda" or (device == "auto" and gpus > 1)
    if on_gpu and processes > gpus:
        raise FramePackError(
            f"There are {gpus} GPUs, and each process takes one; got processes {processes}. Choose at most {gpus}, or "
            "device cpu."
        )
    threads = max((os.cpu_count() or 1) // processes, 1)
    kind = "cuda" if on_gpu else "cpu"
    how = {"model": path, "processes": processes, "device": kind, "attention": attention, "threads": threads}
    spec = CrewSpec(**how, dtype=_dtype(model))
    spec.check()
    copy, base = model.clone(), model.model
    if on_gpu:  # the host's own weights stay where they are; latents travel, which are small
        copy.load_device = copy.offload_device

    def forward(
        executor: Any,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        positions: Any,
        history: list[ContextGroup],
        own: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> Tensor:
        _check_patches(base.current_patcher)
        levels = constants_of(options).levels
        return crew_of(spec).velocity(x, timestep, context, dict(own), positions, history, levels, poll)

    copy.remove_wrappers_with_key(FORWARD, KEY)
    copy.add_wrapper_with_key(FORWARD, KEY, forward)
    copy.set_attachments(KEY, processes)
    return copy


def crew_of(spec: CrewSpec) -> Crew:
    """The running crew of a spec; another, or one with a dead process, is ended first."""
    if _running and _running[0].spec == spec and _running[0].alive:
        return _running[0]
    end_crew()
    log.info("%d processes load %s", spec.processes, spec.model)
    _running.append(Crew.started(spec, poll))
    return _running[0]


@atexit.register
def end_crew() -> None:
    """End the running crew, if there is one."""
    while _running:
        _running.pop().end()


def _dtype(model: comfy.model_patcher.ModelPatcher) -> str:
    """The dtype that the model computes in. Raises FramePackError for weights that processes do not load."""
    dtype = model.model.manual_cast_dtype or model.model.diffusion_model.dtype
    if dtype not in DTYPES:
        raise FramePackError(
            f"FramePack Parallel runs models in bf16, fp16 or fp32; got {dtype}. Choose weight_dtype bf16 in FramePack "
            "Load Model."
        )
    return DTYPES[dtype]


def _check_patches(patcher: comfy.model_patcher.ModelPatcher) -> None:
    """Raises FramePackError where something was done to the weights that no file holds."""
    if patcher.patches:
        raise FramePackError(
            "FramePack Parallel's processes load the model's file, and LoRAs are not in it. Merge the LoRA into a "
            "file with ModelSave, load that, or take FramePack Parallel out."
        )
