"""The nodes that SectionSampler becomes: sections, and the node that gathers them. Users do not place them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..framepack.errors import PlanError
from ..framepack.pipeline import Settings, sample_sections
from ..framepack.planning.plan_slice import PlanSlice
from ..framepack.planning.request import VIDEO
from ..framepack.planning.takes import TakeError, Takes
from ..framepack.sampling.sigmas import check_sigmas
from . import host
from .expansion import input_of
from .outside import BEFORE, MADE, check_channels, finished, known_latents, normalised
from .section_inputs import FIRST, LAST, SectionInputs, outside_inputs, still_input
from .types import CATEGORY


def placed_inputs() -> list[io.Input]:
    """A slice of the plan, and the latents from outside that it may use."""
    part = io.String.Input("part", multiline=True, tooltip="A slice of the plan, JSON.")
    return [part, *outside_inputs(), still_input()]


class FramePackSections(io.ComfyNode):
    """One section, or in a very long plan a run of them. SectionSampler places it."""

    TAKES = (MADE, "said_")

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs; latents of earlier sections are made_0, made_1, ..., other prompts said_..."""
        return io.Schema(
            node_id="FramePackSections",
            display_name="FramePack Sections",
            category=f"{CATEGORY}/internal",
            description="Placed by SectionSampler.",
            is_experimental=True,
            inputs=[*placed_inputs(), *SectionInputs.inputs("model", "positive", *FIRST, "keep", *LAST, "history")],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def check(cls, sigmas: Tensor | None = None) -> None:
        """Raises FramePackError for noise levels that take no step."""
        if sigmas is not None:
            check_sigmas(sigmas)

    @classmethod
    def execute(cls, part: str, **values: Any) -> io.NodeOutput:
        """Sample each of them in turn."""
        sliced, inputs = PlanSlice.from_json(part), SectionInputs.of(values)
        _check(inputs.model, sliced)
        host.check_treatment(inputs.model, inputs.treatment, discrete=sliced.discrete)
        host.check_solver(inputs.model, inputs.sampler, sliced)
        fmt, sampler = host.latent_format(inputs.model), _sampler(inputs, sliced, values)
        known = known_latents(sliced, values)
        check_channels(known.values(), fmt)
        progress, raw, shown = host.PlanProgress(inputs.model), {}, {}
        for section, made in sample_sections(
            sliced.sections,
            normalised(known, sampler.normalised),
            sampler,
            Settings(
                seed=(inputs.seed + host.video_index()) % 2**64,
                steps=inputs.steps,
                sigmas=inputs.sigmas,
                patch=sliced.geometry.patch,
                outside_noise=host.outside_noise(inputs.model),
                treatment=inputs.treatment.within(fmt.process_in),
                takes=_takes(sliced),
            ),
            like=torch.empty(1, fmt.latent_channels, 1, *sliced.grid),
            first=sliced.first,
            drawn=sliced.drawn,
            outside=sliced.outside,
            store=_store(inputs, sliced),
            progress=progress,
        ):
            own = {frame: made[:, :, i : i + 1] for i, frame in enumerate(section.made)}
            there = {frame: latent for frame, latent in known.items() if isinstance(frame, int)}
            progress.shown(own, there, fmt)
            shown, raw = progress.animation(there | own, fmt), raw | own
        return io.NodeOutput(finished(raw, values.get(BEFORE)), ui=(shown | progress.ui()) or None)


class FramePackGather(io.ComfyNode):
    """Puts sections in order of time. SectionSampler places it."""

    TAKES = (MADE,)

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs; latents of sections are made_0, made_1, ..."""
        return io.Schema(
            node_id="FramePackGather",
            display_name="FramePack Gather",
            category=f"{CATEGORY}/internal",
            description="Placed by SectionSampler.",
            is_experimental=True,
            inputs=[
                io.Int.Input("num_lat_frames", min=1, max=100_000, tooltip="Latent frames of the video."),
                *placed_inputs(),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, num_lat_frames: int, part: str, **values: Any) -> io.NodeOutput:
        """Concatenate."""
        placed = PlanSlice.from_json(part)
        found = known_latents(placed, values)
        like = next(iter(found.values()))
        whole = torch.cat([found[i].to(like) for i in range(num_lat_frames)], 2)
        stated = {host.CLIPS: placed.clips, host.KEPT: placed.kept}
        frame = next((anchor.frame for anchor in placed.anchors if anchor.slot == VIDEO), 0)
        sound = host.sound.moved(values.get("video_latent"), placed.geometry.pixel_frames(frame + 1) - 1)
        return io.NodeOutput({"samples": whole} | {name: list(held) for name, held in stated.items() if held} | sound)


def _store(inputs: SectionInputs, part: PlanSlice) -> Any:
    """The section store, unless this run is private; a locked take is read from it all the same."""
    return host.section_store() if inputs.keep or any(take.lock for take in part.takes.values()) else None


def _takes(part: PlanSlice) -> Takes:
    """The slice's takes for the start image in hand. Raises TakeError for locks of more than one video."""
    video = host.video_index()
    if video and any(take.lock for take in part.takes.values()):
        raise TakeError(
            "A locked take is of one video; got several start images. Remove the locks, or queue one image."
        )
    return {
        index: take if take.seed is None else replace(take, seed=(take.seed + video) % 2**64)
        for index, take in part.takes.items()
    }


def _sampler(inputs: SectionInputs, part: PlanSlice, values: dict[str, Any]) -> host.HostSampler:
    return host.HostSampler(
        model=inputs.model,
        conditionings={section.prompt: values[input_of(section.prompt)] for section in part.sections},
        negative=inputs.negative,
        vision=inputs.clip_vision_output,
        sampler=inputs.sampler or host.sampler_named("euler"),
        guidance=host.guidance_with(inputs.sampler, inputs.led),
        distilled=inputs.guidance,
        causal=inputs.treatment.causal,
    )


def _check(model: Any, part: PlanSlice) -> None:
    """Raises PlanError for a slice without sections, or of another model's geometry; warns of another order."""
    if not part.sections:
        raise PlanError("A slice has at least one section; got none. SectionSampler places this node.")
    planned, own = ((g.spatial, g.patch, g.channels) for g in (part.geometry, host.geometry(model)))
    if planned != own:
        raise PlanError(
            f"The plan must have the model's pixels per latent, patch and channels, {own}; got {planned}. Connect the "
            "model to EndpointPlanner too."
        )
    host.warn_of_schedule(model, part)
    host.warn_of_positions(model, part)
