"""A job file: a plan with all that its sampling needs, for ``python -m framepack generate --job`` on any machine."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..framepack.job_file import JobFile
from ..framepack.planning.plan import Plan
from ..framepack.planning.plan_slice import PlanSlice
from ..framepack.schedule.grammar import parse
from . import host
from .expansion import Expansion, check, input_of
from .outside import check_channels, slot_latents
from .section_inputs import FIRST, LAST, RAW_LINK, SectionInputs, outside_inputs, still_input
from .types import CATEGORY, PlanType

PREFIX = io.String.Input("filename_prefix", default="framepack/job", tooltip="Name of the file in the output folder.")


class FramePackSaveJob(io.ComfyNode):
    """Saves what SectionSampler would sample."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, as SectionSampler's."""
        return io.Schema(
            node_id="FramePackSaveJob",
            display_name="FramePack Save Job",
            category=CATEGORY,
            description="Saves a plan with its prompts, images and settings to one file. Sample it without ComfyUI: "
            "python -m framepack generate --job FILE OUT.latent. Takes models without LoRAs.",
            inputs=[
                *SectionInputs.inputs("model", raw=True),
                PlanType.Input("plan", tooltip="From EndpointPlanner."),
                *SectionInputs.inputs("positive", *FIRST, raw=True),
                *outside_inputs(raw=True),
                io.Clip.Input("clip", tooltip="Encodes the plan's own prompts.", optional=True, **RAW_LINK),
                *SectionInputs.inputs(*LAST),
                PREFIX,
                *SectionInputs.inputs("history", raw=True),
                still_input(raw=True),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="The file.")],
            is_output_node=True,
            enable_expand=True,
        )

    @classmethod
    def execute(cls, plan: str, filename_prefix: str, **values: Any) -> io.NodeOutput:
        """Expand into the nodes that encode the prompts, and one that writes the file."""
        parsed = Plan.from_json(plan)
        check(parsed, values)
        expansion = Expansion(parsed, values, in_turn=False)
        inputs = SectionInputs.given(values) | expansion.prompts() | expansion.outside(PlanSlice.of(parsed))
        job = expansion.graph.node("FramePackJob", "job", plan=plan, filename_prefix=filename_prefix, **inputs)
        return io.NodeOutput(job.out(0), expand=expansion.graph.finalize())


class FramePackJob(io.ComfyNode):
    """Writes a job file. FramePackSaveJob places it."""

    TAKES = ("said_",)

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs; conditionings of the plan's own prompts are said_..."""
        return io.Schema(
            node_id="FramePackJob",
            display_name="FramePack Job",
            category=f"{CATEGORY}/internal",
            description="Placed by FramePackSaveJob.",
            is_experimental=True,
            inputs=[
                PlanType.Input("plan"),
                io.String.Input("part", multiline=True, tooltip="The plan as one slice, JSON."),
                *SectionInputs.inputs("model", "positive", *FIRST, *LAST),
                *outside_inputs(),
                still_input(),
                PREFIX,
                *SectionInputs.inputs("history"),
            ],
            outputs=[io.String.Output(display_name="path")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, plan: str, part: str, filename_prefix: str, **values: Any) -> io.NodeOutput:
        """Write it."""
        parsed, inputs = Plan.from_json(plan), SectionInputs.of(values)
        path = host.output_path(filename_prefix, ".safetensors")
        host.check_treatment(inputs.model, inputs.treatment, discrete=parse(parsed.schedule).discrete)
        job = _job(parsed, PlanSlice.from_json(part), inputs, values)
        job.save(path)
        return io.NodeOutput(str(path), ui={"text": (f"{path}: {len(parsed.sections)} sections",)})


def _job(plan: Plan, part: PlanSlice, inputs: SectionInputs, values: dict[str, Any]) -> JobFile:
    fmt, (scale, shift) = host.latent_format(inputs.model), host.affine(inputs.model)
    slots = slot_latents(part, values)
    check_channels(slots.values(), fmt)

    def condition(conditioning: list) -> dict[str, Any]:
        return host.condition(inputs.model, conditioning, inputs.clip_vision_output, inputs.guidance)

    said = {section.prompt: values[input_of(section.prompt)] for section in plan.sections}
    negative = inputs.negative or host.zeroed(next(iter(said.values())))
    return JobFile(
        plan=plan,
        model=host.model_path(inputs.model),
        prompts={prompt: condition(conditioning) for prompt, conditioning in said.items()},
        negative=condition(negative),
        slots={slot: fmt.process_in(latent) for slot, latent in slots.items()},
        scale=scale,
        shift=shift,
        seed=(inputs.seed + host.video_index()) % 2**64,
        steps=inputs.steps,
        sigmas=inputs.sigmas,
        solver="euler" if inputs.sampler is None else host.solver_name(inputs.sampler),
        guidance=host.guidance_with(inputs.sampler, inputs.led),
        treatment=inputs.treatment,
    )
