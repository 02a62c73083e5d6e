"""What a job file needs of the host: conditionings as a DiT's inputs, the model's file, the solver's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_patcher
import folder_paths
import torch
from torch import Tensor

from ...framepack.errors import FramePackError
from ...framepack.sampling.solvers import SOLVERS
from ...framepack.sampling.staged import name_of
from .loading import file_of
from .sampling import latent_format, solver_of

INPUTS = {"c_crossattn": "context"}  # the host's names of a DiT's inputs, where they differ
OWN = ("context", "y", "guidance", "attention_mask", "image")


def condition(
    model: comfy.model_patcher.ModelPatcher, conditioning: list, vision: Any, distilled: float
) -> dict[str, Tensor]:
    """A conditioning as the DiT's inputs by name. Raises FramePackError for more than one in a list."""
    if len(conditioning) != 1:
        raise FramePackError(f"A job takes one conditioning per prompt; got {len(conditioning)} combined. Use one.")
    ((tensor, options),) = conditioning
    options = {name: value for name, value in options.items() if value is not None}
    like = torch.zeros(1, latent_format(model).latent_channels, 1, 2, 2)
    extra = {"framepack_vision": vision, "guidance": distilled, "device": torch.device("cpu"), "noise": like}
    conds = model.model.extra_conds(**{**options, **extra, "cross_attn": tensor})
    named = {INPUTS.get(name, name): cond.cond for name, cond in conds.items()}
    return {name: value for name, value in named.items() if name in OWN and isinstance(value, Tensor)}


def affine(model: comfy.model_patcher.ModelPatcher) -> tuple[Tensor, Tensor]:
    """Scale and shift ``c`` that turn normalised latents into raw ones."""
    fmt = latent_format(model)
    zeros, ones = (torch.full((1, fmt.latent_channels, 1, 1, 1), value) for value in (0.0, 1.0))
    shift = fmt.process_out(zeros)
    return (fmt.process_out(ones) - shift).flatten(), shift.flatten()


def model_path(model: comfy.model_patcher.ModelPatcher) -> str:
    """The file of a MODEL. Raises FramePackError where something was done to it that no file holds."""
    if model.patches or model.object_patches:
        raise FramePackError(
            "A job names the model's file, and LoRAs and patches are not in it. Connect FramePackLoadModel directly."
        )
    return str(file_of(model).absolute())


def solver_name(sampler: Any) -> str:
    """The name of a SAMPLER among the pack's solvers. Raises FramePackError for others."""
    function = sampler.sampler_function
    name = "euler" if function.__name__ == "sample_euler" else name_of(solver_of(sampler))
    if name is None:
        raise FramePackError(f"A job's sampler must be one of: {', '.join(SOLVERS)}; got {function.__name__}.")
    return name


def output_path(prefix: str, ending: str) -> Path:
    """A new file in the host's output folder."""
    folder, name, counter, *_ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
    return Path(folder) / f"{name}_{counter:05}_{ending}"
