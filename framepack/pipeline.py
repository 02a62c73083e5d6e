"""The noise of a section, and a whole plan section by section."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from .errors import SamplingError
from .packing.history import ContextGroup, gather
from .planning.plan import Plan, Section

Sample = Callable[[Section, list[ContextGroup], int], Tensor]


def section_noise(seed: int, index: int, shape: tuple[int, ...]) -> Tensor:
    """Noise of a section, which its seed and index alone decide, so that an edit elsewhere leaves it alone."""
    generator = torch.Generator("cpu").manual_seed((seed * 0x9E3779B97F4A7C15 + index + 1) % 2**63)
    return torch.randn(shape, generator=generator)


def noise_in_turn(seed: int, drawn: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Noise of a section as the reference has it: one generator, from which every section draws in turn.

    `drawn` are the latent frames ``t`` of the sections that drew before, in shapes otherwise like ``b c t h w``.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    for num_lat_frames in drawn:
        torch.randn((*shape[:2], num_lat_frames, *shape[3:]), generator=generator)
    return torch.randn(shape, generator=generator)


def check_finite(latents: Tensor, index: int) -> None:
    """Raises SamplingError where a section, number `index` of its plan, is not finite: no video comes of it."""
    if torch.isfinite(latents).all():
        return
    share = 100 * (1 - float(torch.isfinite(latents).float().mean()))
    raise SamplingError(
        f"Section {index + 1} is not finite: {share:.3g} % of its values are NaN or infinite. Likely causes: a number "
        "format that overflows (weight_dtype, attention), noise levels that the model does not know (sigmas), or a "
        "LoRA that is too strong. Try weight_dtype bf16 or fp32, attention sdpa, no sigmas, and each LoRA at a lower "
        "strength."
    )


def run_plan(plan: Plan, anchors: Mapping[int | str, Tensor], sample: Sample, like: Tensor) -> Tensor:
    """Sample every section of a plan: the whole video's latents, ``b c t h w``.

    `anchors` holds latents ``b c 1 h w`` by frame or slot; `sample` gives a section's latents from its context;
    `like` states batch, channels and grid.
    """
    timeline = dict(anchors)
    for index, section in enumerate(plan.sections):
        made = sample(section, gather(section, timeline, like), index)
        timeline |= {frame: made[:, :, i : i + 1] for i, frame in enumerate(section.made)}
    return torch.cat([timeline[frame] for frame in range(plan.num_lat_frames)], 2)
