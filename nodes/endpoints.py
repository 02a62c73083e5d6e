"""Planned endpoints: points in time with a prompt or an image of their own; and the images by name."""

from __future__ import annotations

import json
import math
from typing import Any

from comfy_api.latest import io

from ..framepack.errors import PlanError
from ..framepack.planning.json_fields import MAX_NAME
from ..framepack.planning.video import END, START, VIDEO
from .types import CATEGORY, AnchorsType, EndpointsType


def points_of(text: str | None) -> list[dict[str, Any]]:
    """The endpoints of FramePackEndpoint's output, or none. Raises PlanError for anything else."""
    try:
        points = json.loads(text or "[]")
    except (TypeError, ValueError, RecursionError):
        points = None
    if not isinstance(points, list) or not all(map(_is_point, points)):
        raise PlanError(f"endpoints came as {text!r:.60}; expected what FramePackEndpoint gives. Connect one.")
    return points


def _is_point(point: Any) -> bool:
    """Is it an endpoint, at a time that is a number?"""
    if not isinstance(point, dict) or point.keys() != {"seconds", "prompt", "keyframe"}:
        return False
    seconds, words = point["seconds"], (point["prompt"], point["keyframe"])
    timed = isinstance(seconds, int | float) and math.isfinite(seconds)
    return timed and all(word is None or isinstance(word, str) for word in words)


class FramePackEndpoint(io.ComfyNode):
    """One planned endpoint, after those that come in."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="FramePackEndpoint",
            display_name="FramePack Endpoint",
            category=CATEGORY,
            description="A point in time of the video with its own prompt, key frame, or both. Chain several; the gaps "
            "between them are filled towards what is known.",
            inputs=[
                io.Float.Input("seconds", default=2.5, min=0.0, max=1200.0, step=0.05, tooltip="When, from the start."),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    tooltip="What happens here, and in all sections that lie nearer to here than to another endpoint; "
                    "empty: the timeline's, else the sampler's own prompt.",
                ),
                io.String.Input(
                    "keyframe",
                    default="",
                    tooltip="The name of a FramePackKeyframe whose image stands here; empty: the frame is made.",
                ),
                EndpointsType.Input("previous", optional=True, tooltip="Another endpoint, before or after in time."),
            ],
            outputs=[EndpointsType.Output(display_name="endpoints", tooltip="For EndpointPlanner.")],
        )

    @classmethod
    def execute(cls, seconds: float, prompt: str, keyframe: str, previous: str | None = None) -> io.NodeOutput:
        """Append it."""
        points = points_of(previous)
        points.append({"seconds": seconds, "prompt": prompt.strip() or None, "keyframe": keyframe.strip() or None})
        return io.NodeOutput(json.dumps(points))


class FramePackKeyframe(io.ComfyNode):
    """A key frame's latent under a name."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="FramePackKeyframe",
            display_name="FramePack Keyframe",
            category=CATEGORY,
            description="Names an image's latent, so that a FramePackEndpoint can place it in time. Chain several.",
            inputs=[
                io.String.Input("name", default="key", tooltip="The name that FramePackEndpoint uses."),
                io.Latent.Input("latent", tooltip="The image through VAEEncode."),
                AnchorsType.Input("previous", optional=True, tooltip="Other key frames."),
            ],
            outputs=[AnchorsType.Output(display_name="anchors", tooltip="For SectionSampler.")],
        )

    @classmethod
    def check(cls, name: str = "key") -> None:
        """Raises PlanError for a name that is empty, too long or taken."""
        if not 1 <= len(name) <= MAX_NAME or name in (START, END, VIDEO):
            raise PlanError(
                f"name must be 1 to {MAX_NAME} characters long and not start, end or video; got {name!r:.80}. Try key."
            )

    @classmethod
    def execute(
        cls, name: str, latent: dict[str, Any], previous: dict[str, dict[str, Any]] | None = None
    ) -> io.NodeOutput:
        """Add it."""
        if previous and name in previous:
            raise PlanError(f"two key frames are named {name!r}; give each its own name.")
        return io.NodeOutput({**(previous or {}), name: latent})
