"""The pack's own types on the graph, and how previews reach the page."""

from __future__ import annotations

from typing import Any, NamedTuple

from comfy_api.latest import io
from PIL.Image import Image

from ..framepack.pictures.drawing import in_palette
from . import host

ScheduleType = io.Custom("FRAMEPACK_SCHEDULE")  # a canonical schedule string
PlanType = io.Custom("FRAMEPACK_PLAN")  # plan JSON
EndpointsType = io.Custom("FRAMEPACK_ENDPOINTS")  # JSON: a list of seconds, prompt, keyframe
FramesType = io.Custom("FRAMEPACK_FRAMES")  # a video that is being decoded, between the nodes of a run
AnchorsType = io.Custom("FRAMEPACK_ANCHORS")  # LATENTs by name
HistoryType = io.Custom("FRAMEPACK_HISTORY")  # a Treatment: what is done to history
CodebookType = io.Custom("FRAMEPACK_CODEBOOK")  # a Codebook

CATEGORY = "FramePack"


class Drawing(NamedTuple):
    """What a node shows: a picture, and a line of text below it. `data` is for the page's own editors."""

    picture: Image
    text: str
    data: dict[str, Any] | None = None


def preview(picture: Image, text: str, data: Any = None) -> dict:
    """A node's ui: a drawing with a line of text."""
    return {"images": [host.on_page([in_palette(picture)], "png", compress_level=1)], "text": (text,)}
