"""Nodes that check the VAE before sampling and decode finished sections during it. Users do not place them."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..framepack.planning.plan_slice import PlanSlice
from . import host
from .outside import MADE, known_latents
from .sections import placed_inputs
from .types import CATEGORY, FramesType


class FramePackVAECheck(io.ComfyNode):
    """Compares a VAE with the model before the first section is sampled.

    SectionSampler places it first. It is an output node, which the host runs as soon as its inputs are loaded.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs."""
        return io.Schema(
            node_id="FramePackVAECheck",
            display_name="FramePack VAE Check",
            category=f"{CATEGORY}/internal",
            description="Placed by SectionSampler.",
            is_experimental=True,
            is_output_node=True,
            inputs=[io.Model.Input("model"), io.Vae.Input("vae")],
            outputs=[],
        )

    @classmethod
    def execute(cls, model: Any, vae: Any) -> io.NodeOutput:
        """Compare their geometry. Raises FramePackError."""
        host.check_vae(vae, host.geometry(model), host.latent_format(model))
        return io.NodeOutput()


class FramePackFrames(io.ComfyNode):
    """Decodes the next latent frames from the video's beginning on. SectionSampler places it if a VAE is connected.

    It is an output node, which the host runs as soon as its latents are there.
    """

    TAKES = (MADE,)

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs; latents of sections are made_0, made_1, ..."""
        return io.Schema(
            node_id="FramePackFrames",
            display_name="FramePack Frames",
            category=f"{CATEGORY}/internal",
            description="Placed by SectionSampler.",
            is_experimental=True,
            is_output_node=True,
            inputs=[
                io.Vae.Input("vae"),
                io.Int.Input("start", min=0, max=100_000, tooltip="The first latent frame."),
                io.Int.Input("stop", min=1, max=100_000, tooltip="The one after the last."),
                io.Boolean.Input("last", tooltip="The video ends here."),
                FramesType.Input("before", optional=True, tooltip="The frames before them."),
                *placed_inputs(),
            ],
            outputs=[FramesType.Output(), io.Image.Output(tooltip="All frames, of the last of these nodes.")],
        )

    @classmethod
    def execute(
        cls, vae: Any, start: int, stop: int, last: bool, part: str, before: Any = None, **values: Any
    ) -> io.NodeOutput:
        """Decode, and show."""
        placed = PlanSlice.from_json(part)
        known, clips = known_latents(placed, values), placed.clips
        like = next(iter(known.values()))
        decoding = host.Decoding.after(before, vae, start, clips=clips is not None)
        latents = torch.cat([known[i].to(like) for i in range(start, stop)], 2)
        pictures: dict[int, Tensor] = {}
        for piece in [latents] if clips is None else latents.split(list(clips), 2):
            pictures |= decoding.push(piece, ends=last or clips is not None)
        shown = host.show_frames(pictures, host.geometry_of(vae).spatial)
        del pictures
        frames = decoding.take()[slice(*placed.kept or (None,))] if last else None
        return io.NodeOutput(decoding, frames, ui=shown or None)
