"""SectionSampler: one node on the graph that becomes one node per section.

The host's cache knows a node by its ancestors' inputs. So each child gets its own slice of the plan as a literal
and reaches model, prompts, images and noise levels by raw links, never through the planner: an edit, a cancel or a
longer plan then reruns only the sections that it touches.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker, GraphBuilder

from ..framepack.errors import FramePackError
from ..framepack.planning.plan import Anchor, Plan, Section
from ..framepack.planning.prompts import Blend
from ..framepack.planning.video import END, START, VIDEO
from . import host
from .several import starts_of
from .types import CATEGORY, AnchorsType, PlanType

MAX_NODES = (
    128  # children of one SectionSampler; the host hashes each with all its ancestors, and cannot be interrupted then
)
MAX_DECODING = 64  # beside them: nodes that decode, each what one child or several have sampled
MAX_PROMPTS = 128  # of them: nodes that encode or blend a plan's own prompts
SLOT_INPUTS = {START: "start_latent", END: "end_latent", VIDEO: "video_latent"}  # all other slots are in `anchors`
BY_SECTION, IN_TURN = "by section", "in turn"
LITERALS = ("seed", "steps", "cfg", "guidance", "keep", "cfg_above", "history_guidance")
RAW_LINK = {"lazy": True, "extra_dict": {"rawLink": True}}  # of an input that reaches the children as the link it is
LINKS = ("model", "negative", "clip_vision_output", "sampler", "sigmas")


def shared_inputs(raw: bool) -> list[io.Input]:
    """What SectionSampler (raw: links stay links) and its children have in common."""

    def linked(kind: Any, name: str, tooltip: str, optional: bool = True) -> io.Input:
        return kind.Input(name, tooltip=tooltip, optional=optional, **(RAW_LINK if raw else {}))

    return [
        linked(io.Model, "model", "From FramePack Load Model.", False),
        linked(io.Conditioning, "positive", "The prompt.", not raw),
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
        linked(io.Conditioning, "negative", "What cfg above 1 leads away from; zeros if left out."),
        linked(io.ClipVisionOutput, "clip_vision_output", "The start image through SigCLIP, crop none."),
        linked(io.Sampler, "sampler", "Another sampler than Euler, such as UniPC from FramePack Solver."),
        linked(io.Sigmas, "sigmas", "Other noise levels than the model's own."),
        linked(io.Latent, "start_latent", "The start image through VAEEncode."),
        linked(io.Latent, "end_latent", "The end image through VAEEncode: context only, inverted schedules."),
        linked(io.Latent, "video_latent", "The video to extend, through FramePackVideoEncode."),
        linked(AnchorsType, "anchors", "Key frames from FramePackKeyframe, by name."),
        io.Boolean.Input(
            "keep",
            default=True,
            optional=True,
            tooltip="Keep finished sections on disk, so that a run that was cancelled, or whose ComfyUI ended, goes on "
            "where it was.",
        ),
    ]


def guidance_inputs() -> list[io.Input]:
    """Where cfg acts, and what acts elsewhere: of SectionSampler and of its children."""
    return [
        io.Float.Input(
            "cfg_above",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.01,
            optional=True,
            tooltip="The noise level down to which cfg acts; 0: at every step. Where things move is settled above 0.9.",
        ),
        io.Float.Input(
            "history_guidance",
            default=0.0,
            min=0.0,
            max=10.0,
            step=0.1,
            optional=True,
            tooltip="Where cfg does not act: leads away from the negative prompt with a blank history, so that "
            "sections meet more closely. A second pass as cfg's; 0: none, as the released models expect.",
        ),
    ]


class SectionSampler(io.ComfyNode):
    """Samples a plan, section by section."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        model, *others = shared_inputs(raw=True)
        noise = io.Combo.Input(
            "noise",
            options=[BY_SECTION, IN_TURN],
            default=BY_SECTION,
            optional=True,
            tooltip="by section: seed and number decide a section's noise, so an edit leaves the others' alone. in "
            "turn: one generator for all, as in the reference implementation.",
        )
        clip = io.Clip.Input("clip", tooltip="For the plan's own prompts.", optional=True, **RAW_LINK)
        vae = io.Vae.Input(
            "vae",
            tooltip="Decodes what is finished from the video's beginning on, while other sections are still to come, "
            "and gives images. In forward orders that is every section at once, in the others the end.",
            optional=True,
            **RAW_LINK,
        )
        return io.Schema(
            node_id="SectionSampler",
            display_name="FramePack Section Sampler",
            category=CATEGORY,
            description="Samples every section of a plan. Sections that an edit does not touch are kept.",
            inputs=[
                model,
                PlanType.Input("plan", tooltip="From EndpointPlanner."),
                *others,
                noise,
                clip,
                *guidance_inputs(),
                vae,
            ],
            outputs=[
                io.Latent.Output(tooltip="The whole video's latents, one video per start image.", is_output_list=True),
                io.Image.Output(
                    display_name="images", tooltip="All frames, if a VAE is connected.", is_output_list=True
                ),
            ],
            hidden=[io.Hidden.dynprompt],
            enable_expand=True,
        )

    @classmethod
    def execute(cls, plan: str, noise: str = BY_SECTION, **values: Any) -> io.NodeOutput:
        """Expand into the plan's sections."""
        parsed, links = Plan.from_json(plan), values
        _check(parsed, links)
        host.begin_plan(parsed, images=links.get("vae") is not None)
        graph = GraphBuilder()
        if values.get("vae") is not None:  # first, so that a wrong VAE stops the run before sampling
            graph.node("FramePackVAECheck", "vae_check", model=values["model"], vae=values["vae"])
        if START in parsed.slots:
            starts = graph.node("FramePackStarts", "starts", **starts_of(cls.hidden.dynprompt, links["start_latent"]))
            links["start_latent"] = starts.out(0)
        shared = {name: values[name] for name in (*LITERALS, *LINKS) if values.get(name) is not None}
        shared["size"] = json.dumps([parsed.height, parsed.width])
        told = _prompts(graph, parsed, links)
        run = -(-len(parsed.sections) // MAX_NODES)
        children: dict[int, Any] = {}  # by the number of the first section of their run
        for first in range(0, len(parsed.sections), run):
            own = parsed.sections[first : first + run]
            needs = sorted({need // run * run for section in own for need in section.needs} - {first})
            made = _made(children[need] for need in needs)
            children[first] = graph.node(
                "FramePackSections",
                f"section_{first}",
                sections="[" + ",".join(section.to_json() for section in own) + "]",
                first_index=first,
                drawn=json.dumps([s.num_lat_frames for s in parsed.sections[:first]] if noise == IN_TURN else None),
                **(shared | _images(_seen(parsed, own), own, links) | {n: told[n] for n in map(said_name, own)} | made),
            )
        host.remember_sections(len(graph.nodes))
        whole = graph.node(
            "FramePackGather",
            "gather",
            num_lat_frames=parsed.num_lat_frames,
            size=shared["size"],
            **(_images(parsed.anchors, (), links) | _made(children.values()) | _clips(parsed)),
        )
        if links.get("vae") is None:
            videos = graph.node("FramePackVideos", "videos", latents=whole.out(0))
            blocked = ExecutionBlocker("SectionSampler gives images only with a VAE. Connect one to its vae input.")
            return io.NodeOutput(videos.out(0), blocked, expand=graph.finalize())
        images = _frames(graph, parsed, children, run, links)
        videos = graph.node("FramePackVideos", "videos", latents=whole.out(0), images=images)
        return io.NodeOutput(videos.out(0), videos.out(1), expand=graph.finalize())


def _frames(graph: GraphBuilder, plan: Plan, children: dict[int, Any], run: int, links: dict[str, Any]) -> Any:
    """The link to all images: a chain of nodes, each decoding what children add to the video's gapless beginning."""
    maker = {frame: i // run * run for i, section in enumerate(plan.sections) for frame in section.made}
    ready, start, node = list(plan.ready()), 0, None
    apart = -(-len(children) // MAX_DECODING)
    for num, first in enumerate(children, 1):
        if num % apart and num < len(children):
            continue
        frames = range(start, ready[min(first + run, len(ready)) - 1])
        makers = sorted({maker[frame] for frame in frames if frame in maker})
        if not makers:
            continue
        anchors = [anchor for anchor in plan.anchors if set(anchor.frames) & set(frames)]
        node = graph.node(
            "FramePackFrames",
            f"frames_{first}",
            vae=links["vae"],
            start=start,
            stop=frames.stop,
            last=frames.stop == plan.num_lat_frames,
            size=json.dumps([plan.height, plan.width]),
            **(_images(anchors, (), links) | _made(children[i] for i in makers) | _clips(plan, frames)),
            **({"before": node.out(0)} if node else {}),
        )
        start = frames.stop
    assert node is not None, "a plan has sections"
    return node.out(1)


def _clips(plan: Plan, within: range | None = None) -> dict[str, str]:
    """The lengths of the clips in a range of latent frames, as a literal, if sections decode on their own."""
    if not plan.geometry.sections_are_clips:
        return {}
    within = within or range(plan.num_lat_frames)
    return {"clips": json.dumps([len(clip) for clip in plan.clips if clip.start in within])}


def _check(plan: Plan, links: dict[str, Any]) -> None:
    if not plan.height or not plan.width:
        raise FramePackError("The plan has no height and width. Plan with EndpointPlanner, which sets both.")
    if not plan.sections:
        raise FramePackError("The plan has 0 sections, so there is nothing to sample. Plan a longer video.")
    for slot in sorted(plan.slots):
        name = SLOT_INPUTS.get(slot, "anchors")
        if links.get(name) is None:
            raise FramePackError(
                f"{name} is not connected, and the plan uses {slot!r}. Connect its image through VAEEncode, or plan "
                "without it in EndpointPlanner."
            )
    told = {s.prompt for s in plan.sections if s.prompt is not None}
    blends = {prompt for prompt in told if isinstance(prompt, Blend)}
    encoded = (told - blends).union(*((prompt.before, prompt.after) for prompt in blends))
    if len(encoded) + len(blends) > MAX_PROMPTS:
        raise FramePackError(
            f"The plan has {len(encoded)} prompts and {len(blends)} blends of them; expected {MAX_PROMPTS} at most "
            "together. Write fewer lines in EndpointPlanner's prompts, or blend over fewer seconds."
        )
    if told and links.get("clip") is None:
        raise FramePackError("clip is not connected, and the plan has prompts of its own. Connect the text encoder.")


def _made(children: Iterable[Any]) -> dict[str, Any]:
    """Any number of children's latents as inputs."""
    return {f"made_{i}": child.out(0) for i, child in enumerate(children)}


def _seen(plan: Plan, sections: Iterable[Section]) -> tuple[Anchor, ...]:
    """The anchors that sections look at."""
    known = set().union(*(section.known for section in sections))
    return tuple(anchor for anchor in plan.anchors if known & set(anchor.frames))


def _images(anchors: Iterable[Anchor], sections: Iterable[Section], links: dict[str, Any]) -> dict[str, Any]:
    """Links to the latents of anchors and of context-only slots, and where the anchors lie, as a literal."""
    anchors = tuple(anchors)
    slots = {anchor.slot for anchor in anchors}
    slots = slots.union(*(section.slots for section in sections))
    inputs = {SLOT_INPUTS.get(slot, "anchors") for slot in slots}
    return {"places": json.dumps([a.to_dict() for a in anchors])} | {name: links[name] for name in sorted(inputs)}


def said_name(section: Section) -> str:
    """The input that a section's conditioning comes by: positive, or a name that its own prompt alone decides."""
    if section.prompt is None:
        return "positive"
    return "said_" + hashlib.sha256(str(section.prompt).encode()).hexdigest()[:12]


def _prompts(graph: GraphBuilder, plan: Plan, links: dict[str, Any]) -> dict[str, Any]:
    """Links to conditionings by the input that takes them. Each text is encoded once, under an id of its own."""

    def encoded(text: str) -> Any:
        name = "prompt_" + hashlib.sha256(text.encode()).hexdigest()[:12]
        return graph.node("CLIPTextEncode", name, clip=links["clip"], text=text).out(0)

    found = {"positive": links["positive"]}
    for section in plan.sections:
        name, prompt = said_name(section), section.prompt
        if name not in found and isinstance(prompt, Blend):
            ends = {"conditioning_to": encoded(prompt.before), "conditioning_from": encoded(prompt.after)}
            share = {"conditioning_to_strength": 1 - prompt.weight}
            found[name] = graph.node("ConditioningAverage", f"blend_{name}", **ends, **share).out(0)
        elif name not in found:
            found[name] = encoded(str(prompt))
    return found
