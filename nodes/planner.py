"""Plans a video: from a schedule and a length to a graph of sections."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, get_args

from comfy_api.latest import io

from ..framepack.errors import LatentSizeError, PlanError
from ..framepack.pictures.plan_picture import draw_plan
from ..framepack.planning.gaps import Gap
from ..framepack.planning.importance import ByTime
from ..framepack.planning.orders import order_of
from ..framepack.planning.plan import Plan
from ..framepack.planning.prompt_timeline import MAX_BLEND, read, with_prompts
from ..framepack.planning.request import MAX_FPS, MAX_SECONDS, Direction, Endpoint, Extension, PlanRequest, length_of
from ..framepack.planning.reuse import Fate, summary
from ..framepack.planning.video import plan_video
from ..framepack.schedule.grammar import parse
from ..framepack.units import RELEASED, Geometry
from . import host
from .choice_inputs import choice_inputs, choice_of
from .earlier import plan_data
from .endpoints import points_of
from .types import CATEGORY, Drawing, EndpointsType, PlanType, ScheduleType, preview

log = logging.getLogger(__name__)

MAX_SECTION = 64  # latent frames
MAKE_IT, ZERO_LATENT = "make it", "zero latent"
_SIDE = "Pixels, a multiple of 16. Ignored if start_latent or video_latent is connected: the video has that size."


class EndpointPlanner(io.ComfyNode):
    """Plans which sections are generated, in which order, and the history that each one sees."""

    UNSEEN = ("start_latent",)  # the picture needs none of it while the node is edited
    AS_ONE = {"start_latent": lambda latents: one_size(latents)}  # a list of start images has one plan

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="EndpointPlanner",
            display_name="FramePack Endpoint Planner",
            category=CATEGORY,
            description="Plans a video of any length as a sequence of sections.",
            inputs=[*_video_inputs(), *_start_inputs(), *_story_inputs(), *_order_inputs()],
            outputs=[PlanType.Output(display_name="plan", tooltip="Plan JSON for SectionSampler.")],
        )

    @classmethod
    def check(cls, width: int = RELEASED.pixel_unit, height: int = RELEASED.pixel_unit, gap: str = "auto") -> None:
        """Raises LatentSizeError for a size off the unit, PlanError for an unknown gap rule."""
        RELEASED.latent_grid(height, width)
        if gap != "auto":
            Gap.parse(gap)

    @classmethod
    def draw(
        cls, poll: Callable[[], None], found: Callable[[Plan], list[Fate]] = lambda plan: [], **inputs: Any
    ) -> Drawing:
        """The plan's picture, its length, and a warning where it leaves what the model was trained on.

        `found` is the fate of each section, by the plan, where it is known.
        """
        plan = plan_of(poll, **inputs)
        known = found(plan)
        return _drawing(plan, inputs, poll, known)._replace(
            data=plan_data(plan, inputs["fps"], inputs.get("prompts", ""), known)
        )

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        """Plan and draw."""
        plan = plan_of(host.poll, **inputs)
        if warning := _warning(plan, inputs.get("model")):
            log.warning("%s", warning)
        drawn = _drawing(plan, inputs, host.poll)
        text = f"{drawn.text}, {plan.width}x{plan.height} pixels"
        return io.NodeOutput(plan.to_json(), ui=preview(drawn.picture, text))


def _warning(plan: Plan, model: Any = None) -> str | None:
    own = None if model is None else host.schedule_warning(model, plan.sections)
    return own or order_of(parse(plan.schedule)).beyond_training(plan.highest)


def _drawing(plan: Plan, inputs: dict[str, Any], poll: Callable[[], None], found: Sequence[Fate] = ()) -> Drawing:
    text = f"{len(plan.sections)} sections, {stated_length(plan, inputs)}"
    if plan.importance != ByTime.name:
        text += f", history by {plan.importance}"
    said = filter(None, (text, summary(found) if found else "", _warning(plan, inputs.get("model"))))
    return Drawing(draw_plan(plan, inputs["fps"], poll, found), ". ".join(said))


def stated_length(plan: Plan, inputs: dict[str, Any]) -> str:
    """The video's frames and seconds, and what the other kind of length, whole sections or exact, would give."""
    fields, fps, num = _fields(**inputs), inputs["fps"], len(plan.kept_frames)
    text = f"{num} frames{f' of {plan.num_pix_frames} decoded' if plan.kept else ''}, {num / fps:.2f} s"
    own = length_of(inputs["seconds"], fps, **fields)
    try:
        other = length_of(inputs["seconds"], fps, **fields | {"exact": not fields["exact"]})
    except PlanError:  # the longest video, rounded up
        return text
    kind, frames = "whole sections" if fields["exact"] else "exact", num - own.num_kept + other.num_kept
    return text if frames == num else f"{text} ({kind}: {frames} frames, {frames / fps:.2f} s)"


def _video_inputs() -> list[io.Input]:
    """The schedule, and the video's length and size."""
    return [
        ScheduleType.Input("schedule", tooltip="From PackHistory."),
        io.Float.Input(
            "seconds",
            default=5.0,
            min=0.1,
            max=float(MAX_SECONDS),
            step=0.1,
            tooltip="Length to generate, rounded to whole sections unless exact_length is on. Excludes the clip being "
            "extended.",
        ),
        io.Float.Input("fps", default=30.0, min=1.0, max=float(MAX_FPS), step=1.0, tooltip="Frames per second."),
        io.Int.Input("width", default=640, min=16, max=4096, step=16, tooltip=_SIDE),
        io.Int.Input("height", default=640, min=16, max=4096, step=16, tooltip=_SIDE),
    ]


def _start_inputs() -> list[io.Input]:
    """What the video begins with and leads to."""
    return [
        io.Boolean.Input(
            "start_image",
            default=True,
            tooltip="Begin with an image. Connect its latent to SectionSampler's start_latent.",
        ),
        io.String.Input(
            "gap",
            default="auto",
            tooltip="How large the skipped gap (x) looks to the model: auto (the schedule's own rule), released, "
            "pinned, true, or capped:N sections.",
            optional=True,
        ),
        io.Boolean.Input(
            "end_image",
            default=False,
            optional=True,
            tooltip="Lead to an image (inverted schedules only). Connect its latent to SectionSampler's end_latent. "
            "The image guides the video but is not part of it.",
        ),
        io.Combo.Input(
            "without_start",
            options=[MAKE_IT, ZERO_LATENT],
            default=MAKE_IT,
            optional=True,
            tooltip="Without a start image: generate the first frame from the prompt (built-in model), or use a zero "
            "latent in its place (released models, text to video).",
        ),
    ]


def _story_inputs() -> list[io.Input]:
    """Endpoints and prompts in time."""
    return [
        EndpointsType.Input("endpoints", optional=True, tooltip="From FramePackEndpoint."),
        io.String.Input(
            "prompts",
            default="",
            multiline=True,
            optional=True,
            tooltip="Prompt timeline, one line per stretch of time: 0-2.5s: what happens. Each section uses the prompt "
            "at its middle. Empty: the sampler's own prompt. Connect clip on SectionSampler.",
        ),
        io.Float.Input(
            "blend",
            default=0.0,
            min=0.0,
            max=float(MAX_BLEND),
            step=0.1,
            optional=True,
            tooltip="Seconds over which two prompts of the timeline blend into each other. 0 = hard change.",
        ),
    ]


def _order_inputs() -> list[io.Input]:
    """How sections are laid out, and a video to extend."""
    return [
        io.Int.Input(
            "section_length",
            default=0,
            min=0,
            max=MAX_SECTION,
            optional=True,
            tooltip="Latent frames per section. 0 = the schedule's own (g). Released models were trained on 9.",
        ),
        io.Boolean.Input(
            "halve_gaps", default=False, optional=True, tooltip="Generate the middle section of every gap first."
        ),
        io.Combo.Input(
            "extend",
            options=list(get_args(Direction)),
            default="forwards",
            optional=True,
            tooltip="Continue video_latent (forwards), or lead up to it (backwards).",
        ),
        io.Latent.Input("video_latent", optional=True, tooltip="Video to extend, from FramePackVideoEncode."),
        io.Model.Input(
            "model",
            optional=True,
            tooltip="Model to plan for. Needed for Helios, whose sections are clips of 33 frames, and where latents "
            "are not 8x8 pixels and 4 frames, as those of HunyuanVideo and Wan 2.1 are.",
        ),
        io.Boolean.Input(
            "exact_length",
            default=False,
            optional=True,
            tooltip="Make the video exactly as long as seconds says: sections are rounded up and frames beyond the "
            "length are cut at the free end. Off: whole sections.",
        ),
        io.Latent.Input(
            "start_latent",
            optional=True,
            tooltip="The start image through VAEEncode: the video has its width and height. Images of a list must have "
            "one size.",
        ),
        *choice_inputs(),
    ]


def plan_of(poll: Callable[[], None], schedule: str, seconds: float, fps: float, **inputs: Any) -> Plan:
    """The plan of the node's inputs, with its timeline's prompts. Raises FramePackError, and what `poll` raises."""
    fields = _fields(schedule=schedule, fps=fps, **inputs)
    plan = plan_video(PlanRequest.lasting(seconds, fps, **fields), poll)
    stretches = read(inputs.get("prompts", ""), len(plan.kept_frames) / fps)
    return with_prompts(plan, stretches, fps, inputs.get("blend", 0.0), plan.kept_frames.start / fps)


def _fields(
    *,
    schedule: str,
    fps: float,
    start_image: bool,
    gap: str = "auto",
    end_image: bool = False,
    without_start: str = MAKE_IT,
    endpoints: str | None = None,
    section_length: int = 0,
    halve_gaps: bool = False,
    extend: Direction = "forwards",
    video_latent: dict[str, Any] | None = None,
    start_latent: dict[str, Any] | None = None,
    model: Any = None,
    exact_length: bool = False,
    **others: Any,
) -> dict[str, Any]:
    """The inputs as a request's fields, all but its seconds."""
    parsed, geometry = parse(schedule), RELEASED if model is None else host.geometry(model)
    if section_length:
        parsed = replace(parsed, generate=section_length)
    image = start_latent or video_latent
    width, height = (others["width"], others["height"]) if image is None else _size(image, geometry)
    return {
        "schedule": parsed,
        "exact": exact_length,
        "start": start_image,
        "end": end_image,
        "gap": None if gap == "auto" else gap,
        "height": height,
        "width": width,
        "no_start": "section" if without_start == MAKE_IT else "zero",
        "endpoints": _endpoints(points_of(endpoints), fps, geometry, parsed.generate),
        "order": "halved" if halve_gaps else None,
        "extend": None if video_latent is None else _extension(video_latent, extend, geometry),
        "geometry": geometry,
        **choice_of(fps, geometry, **others),
    }


def _length(latent: dict[str, Any]) -> int:
    """Latent frames of a LATENT; a picture's has no axis of time."""
    samples = latent["samples"]
    return samples.shape[2] if samples.ndim == 5 else 1


def one_size(latents: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The first of a list's start images, whose size is that of all. Raises LatentSizeError where it is not."""
    sizes = dict.fromkeys("x".join(map(str, latent["samples"].shape[:-3:-1])) for latent in latents)
    if len(sizes) > 1:
        raise LatentSizeError(
            f"The start images of a list must have one size; got latents of {' and '.join(list(sizes)[:4])}. Resize "
            "the images with FramePack Resolution before VAEEncode, or queue them one by one."
        )
    return latents[0] if latents else None


def _size(latent: dict[str, Any], geometry: Geometry) -> tuple[int, int]:
    """Width and height in pixels of a LATENT's video. Raises LatentSizeError where it has other channels."""
    samples = latent["samples"]
    if samples.shape[1] != geometry.channels:
        raise LatentSizeError(
            f"The wrong VAE encoded the image: latents have {geometry.channels} channels; got {samples.shape[1]}. "
            "Connect VAEEncode to the VAE that the model was trained with."
        )
    height, width = samples.shape[-2:]
    return width * geometry.spatial, height * geometry.spatial


def _extension(latent: dict[str, Any], direction: Direction, geometry: Geometry) -> Extension:
    clips = tuple(latent.get(host.CLIPS, ())) if geometry.sections_are_clips else ()
    return Extension(num_lat_frames=_length(latent), direction=direction, clips=clips)


def _endpoints(points: Iterable[dict[str, Any]], fps: float, geometry: Geometry, generate: int) -> tuple[Endpoint, ...]:
    """Endpoints at their latent frames; between whole sections where sections are clips, each after those before it."""
    found = []
    for index, point in enumerate(sorted(points, key=lambda point: point["seconds"])):
        seconds, frame = point["seconds"], geometry.latent_frame(point["seconds"], fps)
        if geometry.sections_are_clips:
            frame = geometry.seam(seconds, fps, generate) + index
        found.append(Endpoint(frame=frame, slot=point["keyframe"], prompt=point["prompt"], seconds=seconds))
    return tuple(found)
