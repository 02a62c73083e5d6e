"""SectionSampler: one node on the graph that becomes one node per section.

The host's cache knows a node by its ancestors' inputs. So each child gets its own slice of the plan as a literal
and reaches model, prompts and noise levels by raw links, never through the planner: an edit, a cancel or a longer
plan then reruns only the sections that it touches.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder
from torch import Tensor

from ..framepack.errors import FramePackError, LatentSizeError
from ..framepack.packing.history import gather
from ..framepack.plan import Plan, Section
from ..framepack.sampling.sections import section_noise
from ..framepack.sampling.sigmas import flow_sigmas
from ..framepack.units import PIXELS_PER_LATENT
from . import host
from .types import CATEGORY, PlanType

MAX_NODES = 250  # children of one SectionSampler; the host's expansion takes more than its square in time
RAW = {"rawLink": True}
LINKS = ("model", "positive", "negative", "clip_vision_output", "sampler", "sigmas", "start_latent")


def _linked(kind: Any, name: str, tooltip: str, raw: bool, optional: bool = False) -> io.Input:
    if not raw:
        return kind.Input(name, tooltip=tooltip, optional=optional)
    return kind.Input(name, tooltip=tooltip, optional=optional, lazy=True, extra_dict=dict(RAW))


def _inputs(raw: bool) -> list[io.Input]:
    """What SectionSampler (raw) and its children share."""
    return [
        _linked(io.Model, "model", "From LoadFramePackModel.", raw),
        _linked(io.Conditioning, "positive", "The prompt.", raw),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=True,
            tooltip="Each section draws its own noise from the seed and its number.",
        ),
        io.Int.Input("steps", default=25, min=1, max=200, tooltip="Steps per section, unless sigmas are connected."),
        io.Float.Input("cfg", default=1.0, min=0.0, max=30.0, step=0.1, tooltip="1 skips the negative pass."),
        io.Float.Input(
            "guidance", default=10.0, min=0.0, max=100.0, step=0.1, tooltip="Distilled guidance; released models: 10."
        ),
        _linked(io.Conditioning, "negative", "What cfg above 1 leads away from; zeros if left out.", raw, True),
        _linked(io.ClipVisionOutput, "clip_vision_output", "The start image through SigCLIP, crop none.", raw, True),
        _linked(io.Sampler, "sampler", "Another sampler than Euler.", raw, True),
        _linked(io.Sigmas, "sigmas", "Other noise levels than the model's own.", raw, True),
        _linked(io.Latent, "start_latent", "The start image through VAEEncode.", raw, True),
    ]


class SectionSampler(io.ComfyNode):
    """Samples a plan, section by section."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        shared = _inputs(raw=True)
        return io.Schema(
            node_id="SectionSampler",
            display_name="Section Sampler",
            category=CATEGORY,
            description="Samples every section of a plan. Sections that an edit does not touch are kept.",
            inputs=[
                shared[0],
                PlanType.Input("plan", tooltip="From EndpointPlanner."),
                *shared[1:],
                _linked(io.Clip, "clip", "For the plan's own prompts.", True, True),
            ],
            outputs=[io.Latent.Output(tooltip="The whole video's latents.")],
            enable_expand=True,
        )

    @classmethod
    def execute(cls, plan: str, seed: int, steps: int, cfg: float, guidance: float, **links: Any) -> io.NodeOutput:
        """Expand into the plan's sections."""
        parsed = Plan.from_json(plan)
        _check(parsed, links)
        graph = GraphBuilder()
        numbers = {"seed": seed, "steps": steps, "cfg": cfg, "guidance": guidance}
        shared = {name: links[name] for name in LINKS if links.get(name) is not None}
        size = json.dumps([parsed.height, parsed.width])
        run = -(-len(parsed.sections) // MAX_NODES)
        children: dict[int, Any] = {}  # by the number of the first section of their run
        for first in range(0, len(parsed.sections), run):
            own = parsed.sections[first : first + run]
            needs = sorted({need // run * run for section in own for need in section.needs} - {first})
            children[first] = graph.node(
                "FramePackSections",
                f"section_{first}",
                sections="[" + ",".join(section.to_json() for section in own) + "]",
                first_index=first,
                size=size,
                **numbers,
                **(shared | _prompt(graph, own[0], links) | _links(children[need] for need in needs)),
            )
        anchor = {"start_latent": shared["start_latent"]} if parsed.anchors else {}
        made = _links(children.values())
        whole = graph.node("FramePackGather", "gather", num_lat_frames=parsed.num_lat_frames, **anchor, **made)
        return io.NodeOutput(whole.out(0), expand=graph.finalize())


def _links(children: Iterable[Any]) -> dict[str, Any]:
    """Any number of children's latents as inputs."""
    return {f"made_{i}": child.out(0) for i, child in enumerate(children)}


def _check(plan: Plan, links: dict[str, Any]) -> None:
    if not plan.height or not plan.width:
        raise FramePackError("The plan states no size; plan with EndpointPlanner, which has height and width.")
    if plan.slots and links.get("start_latent") is None:
        raise FramePackError(
            "start_latent is not connected, and the plan begins with a start image. Connect the image through "
            "VAEEncode, or switch start_image off in EndpointPlanner."
        )
    if any(s.prompt for s in plan.sections) and links.get("clip") is None:
        raise FramePackError("clip is not connected, and the plan has prompts of its own. Connect the text encoder.")


def _prompt(graph: GraphBuilder, section: Section, links: dict[str, Any]) -> dict[str, Any]:
    if not section.prompt:
        return {}
    return {"positive": graph.node("CLIPTextEncode", clip=links["clip"], text=section.prompt).out(0)}


class FramePackSections(io.ComfyNode):
    """One section, or in a very long plan a run of them. SectionSampler places it."""

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
                io.String.Input("size", tooltip="Height and width in pixels, JSON."),
                *_inputs(raw=False),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, sections: str, first_index: int, size: str, **values: Any) -> io.NodeOutput:
        """Sample each of them in turn."""
        model = values["model"]
        if not host.is_framepack(model):
            raise FramePackError("model is not a FramePack model; connect LoadFramePackModel.")
        slices = [Section.from_dict(s) for s in json.loads(sections)]
        height, width = (n // PIXELS_PER_LATENT for n in json.loads(size))
        fmt = host.latent_format(model)
        timeline = _timeline(values, fmt, height, width)
        raw: dict[int, Tensor] = {}
        for i, section in enumerate(slices):
            made = _sample(model, section, timeline, first_index + i, (height, width), values, (i, len(slices)))
            raw |= {frame: made[:, :, j : j + 1] for j, frame in enumerate(section.made)}
            timeline |= {frame: fmt.process_in(raw[frame]) for frame in section.made}
        return io.NodeOutput({"samples": torch.cat(list(raw.values()), 2), "framepack_frames": list(raw)})


def _made(values: dict[str, Any]) -> dict[int, Tensor]:
    """Raw latents of earlier sections, by frame."""
    found: dict[int, Tensor] = {}
    for name, latent in values.items():
        if name.startswith("made_"):
            frames = latent["framepack_frames"]
            found |= {frame: latent["samples"][:, :, i : i + 1] for i, frame in enumerate(frames)}
    return found


def _timeline(values: dict[str, Any], fmt: Any, height: int, width: int) -> dict[int | str, Tensor]:
    found: dict[int | str, Tensor] = {**_made(values)}
    if (start := values.get("start_latent")) is not None:
        found[0] = _first_frame(start["samples"], height, width)
    return {name: fmt.process_in(latent) for name, latent in found.items()}


def _first_frame(latent: Tensor, height: int, width: int) -> Tensor:
    latent = latent if latent.ndim == 5 else latent[:, :, None]
    if latent.shape[3:] != (height, width):
        came = [n * PIXELS_PER_LATENT for n in latent.shape[3:]]
        raise LatentSizeError(
            f"start_latent is of an image of {came[1]}x{came[0]} pixels; the plan is {width * 8}x{height * 8}. Resize "
            "the image, or give EndpointPlanner its width and height."
        )
    return latent[:1, :, :1]


def _sample(
    model: Any,
    section: Section,
    timeline: dict[int | str, Tensor],
    index: int,
    grid: tuple[int, int],
    values: dict[str, Any],
    run: tuple[int, int],
) -> Tensor:
    """Raw latents of one section, ``1 c t h w``."""
    channels = model.model.diffusion_model.spec.in_channels
    noise = section_noise(values["seed"], index, (1, channels, section.num_lat_frames, *grid))
    history = gather(section, timeline, noise)
    sigmas = values.get("sigmas")
    if sigmas is None:
        sigmas = flow_sigmas(values["steps"], section.num_lat_frames * grid[0] * grid[1] // 4)
    vision = values.get("clip_vision_output")
    extra = {
        "framepack_positions": section.positions,
        "framepack_history": history,
        "framepack_image": None if vision is None else vision["last_hidden_state"],
        "guidance": values["guidance"],
    }
    positive = values["positive"]
    negative = values.get("negative") or host.zeroed(positive)
    steps = len(sigmas) - 1
    return host.sample(
        model,
        noise,
        sigmas,
        values.get("sampler") or host.sampler_named("euler"),
        host.with_values(positive, extra),
        host.with_values(negative, extra),
        values["cfg"],
        values["seed"],
        host.preview_callback(model, steps, run[0] * steps, run[1] * steps),
    )


class FramePackGather(io.ComfyNode):
    """Puts sections in order of time. SectionSampler places it."""

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
                io.Latent.Input("start_latent", optional=True, tooltip="The start image's latent."),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, num_lat_frames: int, start_latent: dict[str, Any] | None = None, **values: Any) -> io.NodeOutput:
        """Concatenate."""
        found = _made(values)
        if start_latent is not None:
            sample = next(iter(found.values()))
            found[0] = _first_frame(start_latent["samples"], *sample.shape[3:]).to(sample)
        return io.NodeOutput({"samples": torch.cat([found[i] for i in range(num_lat_frames)], 2)})
