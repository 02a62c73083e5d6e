"""What SectionSampler, its children and the job file have in common: typed inputs, and the schema made from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..framepack.packing.treatment import UNTREATED, Treatment
from ..framepack.planning.request import END, START, STILL, VIDEO
from ..framepack.planning.request import FIRST as FIRST_FRAME
from ..framepack.sampling.guidance import Guidance
from .types import AnchorsType, HistoryType

SLOT_INPUTS = {  # all other slots are in `anchors`
    START: "start_latent",
    STILL: "still_latent",
    END: "end_latent",
    VIDEO: "video_latent",
    FIRST_FRAME: "video_latent",
}
RAW_LINK = {"lazy": True, "extra_dict": {"rawLink": True}}  # of an input that reaches the children as the link it is


def _link(kind: Any, tooltip: str, required: bool = False) -> Any:
    metadata = {"kind": kind, "given": {"tooltip": tooltip, "optional": not required}, "link": True}
    return field(metadata=metadata) if required else field(default=None, metadata=metadata)


def _value(kind: Any, default: Any, tooltip: str, **given: Any) -> Any:
    return field(default=default, metadata={"kind": kind, "given": {"default": default, "tooltip": tooltip, **given}})


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionInputs:
    """The inputs by which sections are sampled, in the order of the nodes' sockets; latents from outside are apart."""

    model: Any = _link(io.Model, "From FramePack Load Model.", required=True)
    positive: list | None = _link(io.Conditioning, "The prompt.")
    seed: int = _value(
        io.Int,
        0,
        "Each section draws its own noise from the seed and its number.",
        min=0,
        max=0xFFFFFFFFFFFFFFFF,
        control_after_generate=True,
    )
    steps: int = _value(io.Int, 25, "Steps per section, unless sigmas are connected. Fewer are faster.", min=1, max=200)
    cfg: float = _value(
        io.Float,
        1.0,
        "Text guidance. 1 skips the negative pass, as the released models expect.",
        min=0.0,
        max=30.0,
        step=0.1,
    )
    guidance: float = _value(
        io.Float, 10.0, "Distilled guidance. The released models expect 10.", min=0.0, max=100.0, step=0.1
    )
    negative: list | None = _link(io.Conditioning, "Negative prompt, used when cfg > 1. Empty if not connected.")
    clip_vision_output: Any = _link(
        io.ClipVisionOutput, "The start image through CLIPVisionEncode (SigCLIP, crop none)."
    )
    sampler: Any = _link(io.Sampler, "Another sampler than Euler, such as UniPC from FramePack Solver.")
    sigmas: Tensor | None = _link(io.Sigmas, "Other noise levels than the model's own.")
    keep: bool = _value(
        io.Boolean, True, "Save finished sections to disk so an interrupted run can resume.", optional=True
    )
    cfg_above: float = _value(
        io.Float, 0.0, "Apply cfg only above this noise level. 0 = always.", min=0.0, max=1.0, step=0.01, optional=True
    )
    history_guidance: float = _value(
        io.Float,
        0.0,
        "Where cfg does not act, guide away from a result without history, so that sections join more smoothly. Costs "
        "a second pass, like cfg. 0 = off, as the released models expect.",
        min=0.0,
        max=10.0,
        step=0.1,
        optional=True,
    )

    history: Treatment | None = _link(HistoryType, "What is done to history: FramePack Repair, Discretize or Method.")

    @property
    def led(self) -> Guidance:
        """By text and history; `guidance` is a number that the model was distilled to take."""
        return Guidance(cfg=self.cfg, cfg_above=self.cfg_above, history=self.history_guidance)

    @property
    def treatment(self) -> Treatment:
        """What is done to history."""
        return self.history or UNTREATED

    @classmethod
    def inputs(cls, *names: str, raw: bool = False) -> list[io.Input]:
        """The named inputs of a schema; with `raw` links stay links."""
        held = {found.name: found for found in fields(cls)}
        return [_input(held[name], raw) for name in names]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> SectionInputs:
        """From a node's values, which may hold others too."""
        return cls(**{found.name: values[found.name] for found in fields(cls) if found.name in values})

    @classmethod
    def given(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs among a node's values, as another node's; each section's own conditioning is not among them."""
        names = [found.name for found in fields(cls) if found.name != "positive"]
        return {name: values[name] for name in names if values.get(name) is not None}


FIRST = ("seed", "steps", "cfg", "guidance", "negative", "clip_vision_output", "sampler", "sigmas")
LAST = ("cfg_above", "history_guidance")


def _input(found: Field, raw: bool) -> io.Input:
    how = found.metadata
    given = {**how["given"], **(RAW_LINK if raw and how.get("link") else {})}
    return how["kind"].Input(found.name, **given)


def outside_inputs(raw: bool = False) -> list[io.Input]:
    """Latents from outside that a plan may use."""
    how: dict[str, Any] = {"optional": True, **(RAW_LINK if raw else {})}
    return [
        io.Latent.Input("start_latent", tooltip="The start image through VAEEncode.", **how),
        io.Latent.Input(
            "end_latent", tooltip="The end image through VAEEncode: context only, inverted schedules.", **how
        ),
        io.Latent.Input("video_latent", tooltip="The video to extend, through FramePackVideoEncode.", **how),
        AnchorsType.Input("anchors", tooltip="Key frames from FramePackKeyframe, by name.", **how),
    ]


def still_input(raw: bool = False) -> io.Input:
    """One more, which came later and so stands last."""
    how: dict[str, Any] = {"optional": True, **(RAW_LINK if raw else {})}
    return io.Latent.Input("still_latent", tooltip="Helios: the start image through FramePackStill.", **how)
