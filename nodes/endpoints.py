"""Planned endpoints, points in time with their own prompt or image, and key frames: those images by name."""

from __future__ import annotations

import json
from typing import Any

from comfy_api.latest import io

from ..framepack.errors import PlanError, quoted
from ..framepack.planning.json_fields import list_of, load_json, object_of, slot_of
from ..framepack.planning.prompts import checked
from ..framepack.planning.request import END, MAX_SECONDS, START, VIDEO
from .types import CATEGORY, AnchorsType, EndpointsType

MAX_ENDPOINTS = 1000


def points_of(text: str | None) -> list[dict[str, Any]]:
    """The endpoints of FramePackEndpoint's output, or none. Raises PlanError for anything else."""
    points = list_of(load_json(text or "[]", "list of endpoints"), "The list of endpoints")
    if len(points) > MAX_ENDPOINTS:
        raise PlanError(f"A plan has at most {MAX_ENDPOINTS} endpoints; got {len(points)}. Use fewer.")
    return [_checked(point) for point in points]


def _checked(point: Any) -> dict[str, Any]:
    """An endpoint within the bounds of FramePackEndpoint's inputs. Raises PlanError."""
    fields = object_of(point, "An endpoint", {"seconds", "prompt", "keyframe"}, set())
    seconds, prompt, keyframe = fields["seconds"], fields["prompt"], fields["keyframe"]
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 <= seconds <= MAX_SECONDS:
        raise PlanError(f"An endpoint's time is 0 to {MAX_SECONDS} seconds; got {quoted(seconds)}. Try 2.5.")
    if prompt is not None:
        checked(prompt)
    if keyframe is not None:
        slot_of(keyframe)
    return fields


class FramePackEndpoint(io.ComfyNode):
    """Adds one planned endpoint to a list."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="FramePackEndpoint",
            display_name="FramePack Endpoint",
            category=CATEGORY,
            description="A point in time with its own prompt, key frame, or both. Chain several. The gaps between them "
            "are generated from both ends.",
            inputs=[
                io.Float.Input(
                    "seconds",
                    default=2.5,
                    min=0.0,
                    max=float(MAX_SECONDS),
                    step=0.05,
                    tooltip="Seconds from the start.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    tooltip="Prompt of this endpoint and of all sections nearer to it than to another endpoint. Empty: "
                    "use the prompt timeline, or the sampler's own prompt.",
                ),
                io.String.Input(
                    "keyframe",
                    default="",
                    tooltip="Name of the FramePackKeyframe to show at this time. Empty: the frame is generated.",
                ),
                EndpointsType.Input("previous", optional=True, tooltip="Endpoints to add this one to, in any order."),
            ],
            outputs=[EndpointsType.Output(display_name="endpoints", tooltip="For EndpointPlanner.")],
        )

    @classmethod
    def check(cls, prompt: str = "", keyframe: str = "") -> None:
        """Raises PlanError for a prompt or a name out of bounds."""
        checked(prompt)
        if keyframe.strip():
            slot_of(keyframe.strip())

    @classmethod
    def value(cls, seconds: float, prompt: str, keyframe: str, previous: str | None = None) -> str:
        """The endpoints so far, as JSON, with this one."""
        point = {"seconds": seconds, "prompt": prompt.strip() or None, "keyframe": keyframe.strip() or None}
        return json.dumps([*points_of(previous), _checked(point)])

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        """Append it."""
        return io.NodeOutput(cls.value(**inputs))


class FramePackKeyframe(io.ComfyNode):
    """A key frame's latent under a name."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="FramePackKeyframe",
            display_name="FramePack Keyframe",
            category=CATEGORY,
            description="Names an image's latent, so that FramePackEndpoint can place it in time. Chain several.",
            inputs=[
                io.String.Input("name", default="key", tooltip="Name to use in FramePackEndpoint."),
                io.Latent.Input("latent", tooltip="The image, encoded with VAEEncode."),
                AnchorsType.Input("previous", optional=True, tooltip="Key frames to add this one to."),
            ],
            outputs=[AnchorsType.Output(display_name="anchors", tooltip="For SectionSampler.")],
        )

    @classmethod
    def check(cls, name: str = "key") -> None:
        """Raises PlanError for a name that is empty, too long or taken."""
        if slot_of(name) in (START, END, VIDEO):
            raise PlanError(f"A key frame is not named start, end or video; got {quoted(name)}. Try key.")

    @classmethod
    def execute(
        cls, name: str, latent: dict[str, Any], previous: dict[str, dict[str, Any]] | None = None
    ) -> io.NodeOutput:
        """Add it."""
        if previous and name in previous:
            raise PlanError(f"Each key frame has a name of its own; got {quoted(name)} twice. Rename one.")
        return io.NodeOutput({**(previous or {}), name: latent})
