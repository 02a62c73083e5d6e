"""Latents by frame: of sections that are finished, and from outside. Dims: c channels, t h w latent grid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ..framepack.errors import FramePackError, LatentSizeError
from ..framepack.planning.plan_slice import PlanSlice
from ..framepack.planning.request import FIRST, VIDEO
from . import host
from .section_inputs import SLOT_INPUTS
from .several import clip_of, images_of

MADE, FRAMES = "made_", "framepack_frames"  # inputs of finished sections; which frames such a LATENT holds
# The input of the section before, where sections choose their history among all others, and what such a LATENT holds:
# the LATENT of the section before it. So a plan of n sections has n links, and each latent exists once.
BEFORE = f"{MADE}before"
Timeline = dict[int | str, Tensor]


def finished(latents: Mapping[int, Tensor], before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A LATENT of a section's latents ``1 c 1 h w`` by frame, with the LATENT of the section before it in a chain."""
    return {"samples": torch.cat(list(latents.values()), 2), FRAMES: list(latents), BEFORE: before}


def _chain(latent: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    while latent is not None:
        yield latent
        latent = latent.get(BEFORE)


def normalised(known: Timeline, function: Callable[[Tensor], Tensor]) -> Timeline:
    """Latents by frame or slot as the model has them; those of one size at once, since there may be thousands."""
    if len({(latent.shape, latent.dtype, latent.device) for latent in known.values()}) != 1:
        return {name: function(latent) for name, latent in known.items()}
    together = function(torch.cat(list(known.values()), 2))
    return dict(zip(known, together.split(next(iter(known.values())).shape[2], 2), strict=True))


def known_latents(part: PlanSlice, values: Mapping[str, Any]) -> Timeline:
    """Raw latents ``1 c 1 h w`` by frame or slot: of finished sections, anchors and context-only slots.

    Raises FramePackError for a slot without its latent, LatentSizeError for one of another size.
    """
    found: Timeline = {}
    for name, latent in values.items():
        if name.startswith(MADE):
            for held in _chain(latent):
                found |= {frame: held["samples"][:, :, i : i + 1] for i, frame in enumerate(held[FRAMES])}
    for anchor in part.anchors:
        latent = _slot(anchor.slot, part, values)
        if latent.shape[2] < anchor.num_lat_frames:
            raise LatentSizeError(
                f"{SLOT_INPUTS.get(anchor.slot, anchor.slot)} must have {anchor.num_lat_frames} latent frames, as the "
                f"plan says; got {latent.shape[2]}. Connect the same latent to EndpointPlanner and SectionSampler."
            )
        found |= {frame: latent[:, :, i : i + 1] for i, frame in enumerate(anchor.frames)}
    slots = set().union(*(section.slots for section in part.sections))
    return found | {slot: _slot(slot, part, values) for slot in slots}


def slot_latents(part: PlanSlice, values: Mapping[str, Any]) -> dict[str, Tensor]:
    """Raw latents ``1 c t h w`` of all slots that a slice uses. Raises as `known_latents`."""
    return {slot: _slot(slot, part, values) for slot in part.slots}


def check_channels(latents: Iterable[Tensor], latent_format: Any) -> None:
    """Raises LatentSizeError for another model's latents."""
    expected = latent_format.latent_channels
    if strange := {latent.shape[1] for latent in latents} - {expected}:
        raise LatentSizeError(
            f"The wrong VAE encoded an image: this model needs {expected} channels; got {min(strange)}. Connect "
            f"VAEEncode to {host.needed_vae(latent_format)}."
        )


def _slot(slot: str, part: PlanSlice, values: Mapping[str, Any]) -> Tensor:
    """A slot's raw latents ``1 c t h w``."""
    name = SLOT_INPUTS.get(slot)
    latent = values.get(name) if name else values.get("anchors", {}).get(slot)
    if latent is None:
        there = ", ".join(sorted(values.get("anchors", {}))) or "none"
        raise FramePackError(
            f"The plan uses the key frame {slot!r}; got key frames: {there}. Name it in FramePackKeyframe."
        )
    if slot == FIRST and host.FIRST not in latent:  # nothing was left out before the first clip
        latent = {"samples": clip_of(latent)[:, :, :1]}
    elif slot == FIRST:
        latent = {"samples": latent[host.FIRST]}
    samples = clip_of(latent) if slot == VIDEO else torch.cat(images_of(latent, name or slot))
    if len(samples) != 1:
        raise LatentSizeError(
            f"{name or slot} must hold one image or one video; got a batch of {len(samples)}. Choose one by "
            "LatentFromBatch."
        )
    if tuple(samples.shape[3:]) != part.grid:
        given = "x".join(str(part.geometry.spatial * n) for n in reversed(samples.shape[3:]))
        raise LatentSizeError(
            f"{name or slot} must be of an image of {part.width}x{part.height} pixels, as the plan; got {given}. "
            "Resize the image, or give EndpointPlanner its width and height."
        )
    return samples
