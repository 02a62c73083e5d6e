"""Is there memory for a plan? Checked before its first section is sampled, by lower bounds, against all that is free.

Only the nodes of sections know the model, and only SectionSampler knows the whole plan: it leaves the largest section
with the run.
"""

from __future__ import annotations

import logging
import sys
from math import prod

import comfy.model_management
import comfy.model_patcher
import psutil
import torch

from ...framepack.checkpoints.model_file import shapes_of
from ...framepack.errors import TooLittleMemoryError
from ...framepack.nn.layers import Modulation
from ...framepack.planning.memory import Work, check_plan, check_work
from ...framepack.planning.plan import Plan, Section
from ...framepack.units import BASE
from .runs import begin_run, current_run

log = logging.getLogger(__name__)


def begin_plan(plan: Plan, images: bool, title: str = "") -> None:
    """A plan is about to be sampled, and decoded to images. Raises TooLittleMemoryError where it does not fit."""
    grid = *plan.geometry.latent_grid(plan.height or 0, plan.width or 0), plan.geometry.patch
    check_plan(plan, psutil.virtual_memory().available + psutil.swap_memory().free, images)
    begin_run(len(plan.sections), (max(plan.sections, key=lambda section: _tokens(section, grid)), grid[:2]), title)


def check_memory(model: comfy.model_patcher.ModelPatcher, section: Section, grid: tuple[int, int]) -> None:
    """Raises TooLittleMemoryError where this section, or the plan's largest, does not fit on the device."""
    dit = model.model.diffusion_model
    largest = current_run().largest or (section, grid)
    patch = dit.spec.geometry.patch
    section, grid = max((section, grid), largest, key=lambda found: _tokens(found[0], (*found[1], patch)))
    dtype: torch.dtype = model.model.manual_cast_dtype or dit.dtype
    work = Work(
        section=section,
        height=grid[0],
        width=grid[1],
        model_width=dit.spec.width,
        itemsize=dtype.itemsize,
        matrix=_largest_matrix(dit) * dtype.itemsize,
        geometry=dit.spec.geometry,
    )
    device = model.load_device
    try:
        check_work(work, _available(device))
    except TooLittleMemoryError as fault:
        if device.type == "cuda" and sys.platform == "win32":  # its driver continues in system memory
            log.warning("%s", fault)
        else:
            raise


def _tokens(section: Section, grid: tuple[int, int, int]) -> int:
    """Tokens on a grid of latent height, latent width and patch."""
    return BASE.num_tokens(section.num_lat_frames, *grid) + section.num_context_tokens(*grid)


def _largest_matrix(dit: torch.nn.Module) -> int:
    """Values of the blocks' largest weight. A plan may do without other layers; modulations have tables."""
    blocks = tuple(f"{name}." for name, held in dit.named_children() if isinstance(held, torch.nn.ModuleList))
    off = tuple(f"{name}." for name, part in dit.named_modules() if isinstance(part, Modulation))
    shapes = shapes_of(dit.spec).items()  # however the layers hold their weights
    return max((prod(shape) for key, shape in shapes if key.startswith(blocks) and not key.startswith(off)), default=0)


def _available(device: torch.device) -> int:
    """Bytes that are free on a device or that unloading models frees; swap counts where the device uses it."""
    management = comfy.model_management
    held = sum(m.model_loaded_memory() for m in management.current_loaded_models if m.device == device)
    swap = psutil.swap_memory().free if device.type in ("cpu", "mps") else 0
    return int(management.get_free_memory(device)) + held + swap
