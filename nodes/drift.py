"""How far the end of a video is from its beginning, measured on the graph."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image
from torch import Tensor

from ..framepack.metrics.drift import check_names, measure
from ..framepack.metrics.frames import Clip
from ..framepack.metrics.measures import DEFAULT
from ..framepack.metrics.plot import plot
from ..framepack.metrics.tables import table
from .types import CATEGORY, preview


class FramePackDrift(io.ComfyNode):
    """Measures the start-end contrast of a video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="FramePackDrift",
            display_name="FramePack Drift",
            category=CATEGORY,
            description="Measures how far the end of a video is from its beginning, and draws it over time.",
            inputs=[
                io.Image.Input("images", tooltip="All frames of the video."),
                io.Float.Input(
                    "fps", default=30.0, min=1.0, max=240.0, step=1.0, tooltip="Frames per second of the video."
                ),
                io.String.Input(
                    "measures",
                    default=DEFAULT,
                    tooltip="Measures, separated by commas. Also: clarity (slow), cuts. They need the packages of "
                    "pip install '.[metrics]'.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="JSON: every measure's mean, both ends, every frame."),
                io.Image.Output(display_name="plot", tooltip="The measures over time, both ends shaded."),
            ],
            is_output_node=True,
        )

    @classmethod
    def check(cls, measures: str = DEFAULT) -> None:
        """Every measure exists."""
        check_names(_names(measures))

    @classmethod
    def execute(cls, images: Tensor, fps: float, measures: str) -> io.NodeOutput:
        """Measure, and draw."""
        _, height, width, _ = images.shape
        clip = Clip(name="video", fps=fps, height=height, width=width, frames=_frames(images))
        report = measure(clip, _names(measures))
        drawn = BytesIO()
        plot([report], drawn)
        picture = Image.open(drawn).convert("RGB")
        pixels = torch.from_numpy(np.array(picture)).float()[None] / 255
        return io.NodeOutput(report.to_json(), pixels, ui=preview(picture, table(report)))


def _names(measures: str) -> list[str]:
    return [name.strip() for name in measures.split(",")]


def _frames(images: Tensor) -> Iterator[np.ndarray]:
    """IMAGE ``t h w c`` in [0, 1] to frames ``h w 3`` uint8."""
    for image in images:
        yield (image[..., :3].clamp(0, 1) * 255).round().byte().cpu().numpy()
