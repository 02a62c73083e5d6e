"""The nodes that SectionSampler becomes: sections, and what puts them together. Users do not place them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..framepack.errors import FramePackError, LatentSizeError, PlanError
from ..framepack.packing.history import ContextGroup, gather
from ..framepack.pipeline import check_finite, noise_in_turn, section_noise
from ..framepack.planning.json_fields import list_of, load_json
from ..framepack.planning.plan import Anchor, Section
from ..framepack.planning.request import VIDEO
from ..framepack.sampling.guidance import Guidance, blank, sees
from ..framepack.sampling.sigmas import check_sigmas, flow_sigmas
from ..framepack.units import BASE, RELEASED
from . import host
from .sampler import SLOT_INPUTS, guidance_inputs, said_name, shared_inputs
from .several import clip_of, images_of
from .types import CATEGORY, AnchorsType

log = logging.getLogger(__name__)

PLACES = io.String.Input("places", default="[]", tooltip="Where latents from outside lie, JSON.")
CLIPS = io.String.Input(
    "clips", default="null", optional=True, tooltip="Lengths of the clips that decode on their own, JSON."
)
SIZE = io.String.Input("size", tooltip="Height and width in pixels, JSON.")


def placed_inputs() -> list[io.Input]:
    """The latents from outside that are part of a video, and where they lie in it."""
    return [
        SIZE,
        PLACES,
        *(io.Latent.Input(name, optional=True, tooltip="From outside.") for name in SLOT_INPUTS.values()),
        AnchorsType.Input("anchors", optional=True, tooltip="Key frames."),
    ]


class FramePackSections(io.ComfyNode):
    """One section, or in a very long plan a run of them. SectionSampler places it."""

    TAKES = ("made_", "said_")

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs; latents of earlier sections come as made_0, made_1, ..."""
        return io.Schema(
            node_id="FramePackSections",
            display_name="FramePack Sections",
            category=f"{CATEGORY}/internal",
            description="Placed by SectionSampler.",
            is_experimental=True,
            inputs=[
                io.String.Input("sections", multiline=True, tooltip="Slices of the plan, JSON."),
                io.Int.Input("first_index", min=0, max=100_000, tooltip="The first section's number in the plan."),
                SIZE,
                PLACES,
                io.String.Input("drawn", default="null", tooltip="Lengths of sections that drew noise before, JSON."),
                *shared_inputs(raw=False),
                *guidance_inputs(),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def check(cls, sigmas: Tensor | None = None) -> None:
        """Raises FramePackError for noise levels that take no step."""
        if sigmas is not None:
            check_sigmas(sigmas)

    @classmethod
    def execute(
        cls, sections: str, first_index: int, size: str, places: str, drawn: str = "null", **values: Any
    ) -> io.NodeOutput:
        """Sample each of them in turn."""
        model = values["model"]
        values["seed"] = (values["seed"] + host.video_index()) % 2**64
        slices = [Section.from_dict(s) for s in list_of(load_json(sections, "sections"), "sections")]
        if not slices:
            raise PlanError("sections is empty, so there is nothing to sample. SectionSampler places this node.")
        _warn_of_order(model, slices)
        grid, fmt = host.geometry(model).latent_grid(*json.loads(size)), host.latent_format(model)
        known = _made(values) | _placed(places, grid, values) | _slots(slices, grid, values)
        _check_channels(known.values(), fmt.latent_channels)
        timeline = {name: fmt.process_in(latent) for name, latent in known.items()}
        there = {frame: latent for frame, latent in known.items() if isinstance(frame, int)}
        raw: dict[int, Tensor] = {}
        shown: dict[str, Any] = {}
        turns: list[int] | None = json.loads(drawn)
        for index, section in enumerate(slices, first_index):
            job = _Job.of(section, index, grid, timeline, values, turns)
            turns = None if turns is None else [*turns, section.num_lat_frames]
            progress = host.SectionProgress(model, index, len(job.sigmas) - 1)
            made = job.finished(progress)
            own = {frame: made[:, :, j : j + 1] for j, frame in enumerate(section.made)}
            timeline |= {frame: fmt.process_in(own[frame]) for frame in section.made}
            shown, raw = progress.animation(there | own, fmt), raw | own
        latents = {"samples": torch.cat(list(raw.values()), 2), "framepack_frames": list(raw)}
        return io.NodeOutput(latents, ui=shown or None)


class FramePackGather(io.ComfyNode):
    """Puts sections in order of time. SectionSampler places it."""

    TAKES = ("made_",)

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs; latents of sections come as made_0, made_1, ..."""
        return io.Schema(
            node_id="FramePackGather",
            display_name="FramePack Gather",
            category=f"{CATEGORY}/internal",
            description="Placed by SectionSampler.",
            is_experimental=True,
            inputs=[
                io.Int.Input("num_lat_frames", min=1, max=100_000, tooltip="Latent frames of the video."),
                *placed_inputs(),
                CLIPS,
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, num_lat_frames: int, size: str, places: str, clips: str = "null", **values: Any) -> io.NodeOutput:
        """Concatenate."""
        found, lengths = made_and_placed(values, size, places), json.loads(clips)
        like = next(iter(found.values()))
        whole = torch.cat([found[i].to(like) for i in range(num_lat_frames)], 2)
        return io.NodeOutput({"samples": whole} | ({} if lengths is None else {host.CLIPS: lengths}))


def _warn_of_order(model: Any, sections: Iterable[Section]) -> None:
    """Say it when the schedule's order is not the one that the weights were trained for. The pack's own know all."""
    if model.model.diffusion_model.spec.image_dim is None:
        return
    ahead = any(c.positions[0] > s.positions[-1] for s in sections for c in s.context)
    asked, trained = "inverted" if ahead else "forward", host.order_trained(model)
    if asked != trained:
        log.warning(
            "the plan is %s, and the model was trained for %s order: expect drift or a poor video", asked, trained
        )


def made_and_placed(values: dict[str, Any], size: str, places: str) -> dict[int | str, Tensor]:
    """Raw latents by frame: of sections that came as made_0, made_1, ..., then from outside."""
    return _made(values) | _placed(places, RELEASED.latent_grid(*json.loads(size)), values)


def _made(values: dict[str, Any]) -> dict[int | str, Tensor]:
    """Raw latents of earlier sections, by frame."""
    found: dict[int | str, Tensor] = {}
    for name, latent in values.items():
        if name.startswith("made_"):
            frames = latent["framepack_frames"]
            found |= {frame: latent["samples"][:, :, i : i + 1] for i, frame in enumerate(frames)}
    return found


def _placed(places: str, grid: tuple[int, int], values: dict[str, Any]) -> dict[int | str, Tensor]:
    """Raw latents from outside that are part of the video, by frame."""
    found: dict[int | str, Tensor] = {}
    for anchor in map(Anchor.from_dict, json.loads(places)):
        latent = _slot(anchor.slot, grid, values)
        if latent.shape[2] < anchor.num_lat_frames:
            raise LatentSizeError(
                f"{SLOT_INPUTS.get(anchor.slot, anchor.slot)} has {latent.shape[2]} latent frames; the plan counts on "
                f"{anchor.num_lat_frames}. Connect the same latent to EndpointPlanner and SectionSampler."
            )
        found |= {frame: latent[:, :, i : i + 1] for i, frame in enumerate(anchor.frames)}
    return found


def _slots(sections: Iterable[Section], grid: tuple[int, int], values: dict[str, Any]) -> dict[int | str, Tensor]:
    """Raw latents that are context only, by slot."""
    names = set().union(*(section.slots for section in sections))
    return {name: _slot(name, grid, values) for name in names}


def _slot(slot: str, grid: tuple[int, int], values: dict[str, Any]) -> Tensor:
    """A slot's raw latents ``1 c t h w``. Raises FramePackError without it, LatentSizeError for another size."""
    name = SLOT_INPUTS.get(slot)
    latent = values.get(name) if name else values.get("anchors", {}).get(slot)
    if latent is None:
        there = ", ".join(sorted(values.get("anchors", {}))) or "none"
        raise FramePackError(
            f"The plan uses the key frame {slot!r}; anchors has {there}. Name it in FramePackKeyframe."
        )
    samples = clip_of(latent) if slot == VIDEO else torch.cat(images_of(latent, name or slot))
    if len(samples) != 1:
        raise LatentSizeError(
            f"{name or slot} must hold one image or one video; got a batch of {len(samples)}. Choose one by "
            "LatentFromBatch."
        )
    if tuple(samples.shape[3:]) != grid:
        came, expected = ("x".join(str(RELEASED.spatial * n) for n in (w, h)) for h, w in (samples.shape[3:], grid))
        raise LatentSizeError(
            f"{name or slot} is of an image of {came} pixels; the plan is {expected}. Resize the image, or give "
            "EndpointPlanner its width and height."
        )
    return samples


def _check_channels(latents: Iterable[Tensor], expected: int) -> None:
    """Raises LatentSizeError for another model's latents."""
    if strange := {latent.shape[1] for latent in latents} - {expected}:
        raise LatentSizeError(
            f"an image's latent has {min(strange)} channels; this model's have {expected}. Encode the images with the "
            "model's own VAE."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """All that a section is sampled from. `seed` is for samplers that draw noise of their own."""

    section: Section
    index: int
    noise: Tensor
    sigmas: Tensor
    history: list[ContextGroup]
    values: dict[str, Any]

    @classmethod
    def of(
        cls,
        section: Section,
        index: int,
        grid: tuple[int, int],
        timeline: dict[int | str, Tensor],
        values: dict[str, Any],
        drawn: list[int] | None,
    ) -> _Job:
        """Gather a section's history from the timeline, and draw its noise: its own, or in turn after `drawn`."""
        channels = host.latent_format(values["model"]).latent_channels
        shape = (1, channels, section.num_lat_frames, *grid)
        seed = values["seed"]
        noise = section_noise(seed, index, shape) if drawn is None else noise_in_turn(seed, drawn, shape)
        sigmas = values.get("sigmas")
        if sigmas is None:
            sigmas = flow_sigmas(values["steps"], BASE.num_tokens(section.num_lat_frames, *grid))
        history = gather(section, timeline, noise)
        return cls(section=section, index=index, noise=noise, sigmas=sigmas, history=history, values=values)

    @property
    def sampler(self) -> Any:
        """The solver, as the host has it."""
        return self.values.get("sampler") or host.sampler_named("euler")

    @property
    def positive(self) -> list:
        """The conditioning of its prompt."""
        return self.values[said_name(self.section)]

    @property
    def led(self) -> Guidance:
        """By text and history; the input `guidance` is another, which the model was distilled to take as a number."""
        names = {"cfg": "cfg", "cfg_above": "cfg_above", "history": "history_guidance"}
        return Guidance(**{field: self.values[name] for field, name in names.items() if name in self.values})

    def key(self) -> str | None:
        """What it is kept under: a digest of all that determines it."""
        parts = {name: self.values.get(name) for name in ("seed", "guidance", "negative")}
        parts |= {
            "led": asdict(self.led),
            "positive": self.positive,
            "noise": self.noise,
            "sigmas": self.sigmas,
            "history": self.history,
            "at": self.section.positions,
        }
        return host.section_key(self.values["model"], self.sampler, self.values.get("clip_vision_output"), parts)

    def finished(self, progress: host.SectionProgress) -> Tensor:
        """Raw latents ``1 c t h w``: from the store, else sampled and kept there."""
        store = host.section_store() if self.values.get("keep", True) else None
        key = self.key() if store else None
        found = store.get(key) if store and key else None
        if found is not None and found.shape == self.noise.shape:
            progress.skip()
            log.info("section %d is loaded from the section store", self.index + 1)
            return found
        made = self.sampled(progress)
        check_finite(made, self.index)
        if store and key:
            store.put(key, made)
        return made

    def sampled(self, progress: host.SectionProgress) -> Tensor:
        """Raw latents ``1 c t h w`` from the host's sampling."""
        values = self.values
        host.check_memory(values["model"], self.section, tuple(self.noise.shape[3:]))
        extra = {
            "framepack_positions": self.section.positions,
            "framepack_history": self.history,
            "framepack_vision": values.get("clip_vision_output"),
            "guidance": values["guidance"],
        }
        negative = values.get("negative") or host.zeroed(self.positive)
        conds = {"positive": host.with_values(self.positive, extra), "negative": host.with_values(negative, extra)}
        if self.led.history and sees(self.history):
            conds["blank"] = host.with_values(negative, extra | {"framepack_history": blank(self.history)})
        model, seed = values["model"], values["seed"]
        return host.sample(model, self.noise, self.sigmas, self.sampler, conds, self.led, seed, progress.callback)
