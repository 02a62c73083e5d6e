"""SectionSampler: one node on the graph that becomes one node per section."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..framepack.planning.plan import Plan
from ..framepack.planning.takes import read_takes
from . import host
from .expansion import Expansion, check
from .section_inputs import FIRST, LAST, RAW_LINK, SectionInputs, outside_inputs, still_input
from .types import CATEGORY, PlanType

BY_SECTION, IN_TURN = "by section", "in turn"
NO_IMAGES = "SectionSampler gives images only with a VAE. Connect one to its vae input."


class SectionSampler(io.ComfyNode):
    """Samples a plan, section by section."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        (positive,) = SectionInputs.inputs("positive", raw=True)
        positive.optional = False
        return io.Schema(
            node_id="SectionSampler",
            display_name="FramePack Section Sampler",
            category=CATEGORY,
            description="Samples every section of a plan. Sections that an edit does not touch are kept.",
            inputs=[
                *SectionInputs.inputs("model", raw=True),
                PlanType.Input("plan", tooltip="From EndpointPlanner."),
                positive,
                *SectionInputs.inputs(*FIRST, raw=True),
                *outside_inputs(raw=True),
                *SectionInputs.inputs("keep"),
                *_own_inputs(),
                *SectionInputs.inputs(*LAST),
                io.Vae.Input(
                    "vae",
                    tooltip="Decode finished sections from the beginning of the video while others are sampled, and "
                    "return images. In forward orders that is every section, in other orders it starts at the end.",
                    optional=True,
                    **RAW_LINK,
                ),
                *SectionInputs.inputs("history", raw=True),
                io.String.Input(
                    "takes",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Other seeds for single sections, one line each: 2: 17 makes section 2 with seed 17, and "
                    "then those that follow from it. The takes below write these lines. Empty: the seed above.",
                ),
                still_input(raw=True),
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
    def check(cls, takes: str = "") -> None:
        """Raises TakeError for takes that cannot be read, LostTakeError for a locked one that is not there."""
        host.check_locks(read_takes(takes))

    @classmethod
    def execute(cls, plan: str, noise: str = BY_SECTION, takes: str = "", **values: Any) -> io.NodeOutput:
        """Expand into the plan's sections."""
        parsed, decodes = Plan.from_json(plan), values.get("vae") is not None
        check(parsed, values)
        read = read_takes(takes, len(parsed.sections))
        title = host.title_of(cls.hidden.dynprompt, values["positive"], values.get("start_latent"))
        host.begin_plan(parsed, images=decodes, title=title)
        expansion = Expansion(parsed, values, noise == IN_TURN, read)
        graph = expansion.graph
        if decodes:  # first, so that a wrong VAE stops the run before sampling
            graph.node("FramePackVAECheck", "vae_check", model=values["model"], vae=values["vae"])
        expansion.starts(cls.hidden.dynprompt)
        gathered = {"latents": expansion.latents()} | ({"images": expansion.images()} if decodes else {})
        videos = graph.node("FramePackVideos", "videos", **gathered)
        images = videos.out(1) if decodes else ExecutionBlocker(NO_IMAGES)
        return io.NodeOutput(videos.out(0), images, expand=graph.finalize())


def _own_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "noise",
            options=[BY_SECTION, IN_TURN],
            default=BY_SECTION,
            optional=True,
            tooltip="by section: the seed and the section's number decide its noise, so an edit leaves other sections "
            "unchanged. in turn: one generator for all sections, as in the released implementation.",
        ),
        io.Clip.Input("clip", tooltip="Encodes the plan's own prompts.", optional=True, **RAW_LINK),
    ]
