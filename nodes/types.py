"""The pack's own types on the graph, and how previews reach the page."""

from __future__ import annotations

import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL.Image import Image

ScheduleType = io.Custom("FRAMEPACK_SCHEDULE")  # a canonical schedule string
PlanType = io.Custom("FRAMEPACK_PLAN")  # plan JSON
EndpointsType = io.Custom("FRAMEPACK_ENDPOINTS")  # JSON: a list of seconds, prompt, keyframe
AnchorsType = io.Custom("FRAMEPACK_ANCHORS")  # LATENTs by name

CATEGORY = "FramePack"


def preview(picture: Image, text: str, cls: type[io.ComfyNode]) -> dict:
    """A node's ui: a picture with a line of text."""
    pixels = torch.from_numpy(np.array(picture.convert("RGB")))[None].float().div_(255)
    return ui.PreviewImage(pixels, cls=cls).as_dict() | {"text": (text,)}
