"""SectionSampler's graph: the nodes that sample a plan's sections, encode its prompts, gather and decode.

The host's cache knows a node by its ancestors' inputs. So each child gets its own slice of the plan as a literal
and reaches model, prompts, images and noise levels by raw links, never through the planner: an edit, a cancel or a
longer plan then reruns only the sections that it touches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from comfy_execution.graph_utils import GraphBuilder

from ..framepack.errors import FramePackError
from ..framepack.packing.treatment import START_FRAME
from ..framepack.planning.plan import Plan
from ..framepack.planning.plan_slice import PlanSlice
from ..framepack.planning.prompts import Blend, Prompt
from ..framepack.planning.request import START, STILL
from ..framepack.planning.takes import Takes
from ..framepack.schedule.grammar import parse
from . import host
from .outside import BEFORE, MADE
from .section_inputs import SLOT_INPUTS, SectionInputs
from .several import starts_of

# The host hashes each node with all its ancestors, and no interrupt reaches it then. A node stands for several
# sections, or for what several have sampled, where a plan has more than so many:
MAX_NODES = 128  # nodes that sample
MAX_DECODING = 64  # nodes that decode
MAX_PROMPTS = 128  # a plan's own prompts and blends; each is a node


def check(plan: Plan, links: dict[str, Any]) -> None:
    """Raises FramePackError where a plan has no size, uses what is not connected, or has too many prompts."""
    PlanSlice.placed(plan, ())
    for slot in sorted(plan.slots):
        name = SLOT_INPUTS.get(slot, "anchors")
        if links.get(name) is None:
            through = "FramePackStill" if slot == STILL else "VAEEncode"
            raise FramePackError(
                f"{name} is not connected, and the plan uses {slot!r}. Connect its image through {through}, or plan "
                "without it in EndpointPlanner."
            )
    told = {s.prompt for s in plan.sections if s.prompt is not None}
    blends = {prompt for prompt in told if isinstance(prompt, Blend)}
    encoded = (told - blends).union(*((prompt.before, prompt.after) for prompt in blends))
    if len(encoded) + len(blends) > MAX_PROMPTS:
        raise FramePackError(
            f"A plan has at most {MAX_PROMPTS} prompts and blends together; got {len(encoded)} prompts and "
            f"{len(blends)} blends. Write fewer lines in EndpointPlanner's prompts, or blend over fewer seconds."
        )
    if parse(plan.schedule).discrete and links.get("history") is None:
        raise FramePackError(
            f"The schedule {plan.schedule} asks for discrete history, and history is not connected. Connect FramePack "
            "Discretize, or remove +d."
        )
    if told and links.get("clip") is None:
        raise FramePackError("clip is not connected, and the plan has prompts of its own. Connect the text encoder.")


def input_of(prompt: Prompt | None) -> str:
    """The input for a section's conditioning: positive, or a name that its own prompt alone decides."""
    if prompt is None:
        return "positive"
    return "said_" + hashlib.sha256(str(prompt).encode()).hexdigest()[:12]


@dataclass
class Expansion:
    """The graph of one plan; `links` are SectionSampler's values, links among them."""

    plan: Plan
    links: dict[str, Any]
    in_turn: bool
    takes: Takes = field(default_factory=dict)
    graph: GraphBuilder = field(default_factory=GraphBuilder)

    @cached_property
    def run(self) -> int:
        """Sections of one node."""
        return -(-len(self.plan.sections) // MAX_NODES)

    def starts(self, dynprompt: Any) -> None:
        """Let the start latent be a list of one image each; the host then samples each section for all of them."""
        if START in self.plan.slots:
            given = starts_of(dynprompt, self.links["start_latent"])
            self.links["start_latent"] = self.graph.node("FramePackStarts", "starts", **given).out(0)
        if STILL in self.plan.slots:
            stills = self.graph.node("FramePackStarts", "stills", latents=self.links["still_latent"])
            self.links["still_latent"] = stills.out(0)

    @cached_property
    def sections(self) -> dict[int, Any]:
        """Nodes that sample, by the number of the first section of each."""
        shared, told, found = SectionInputs.given(self.links), self.prompts(), {}
        treated = self.links.get("history") is not None
        for first in range(0, len(self.plan.sections), self.run):
            part = PlanSlice.of(self.plan, first, first + self.run, self.in_turn, start=treated, takes=self.takes)
            inputs = {name: told[name] for name in (input_of(section.prompt) for section in part.sections)}
            inputs |= shared | self.outside(part) | self.made_before(part, found, treated)
            found[first] = self.graph.node("FramePackSections", f"section_{first}", **inputs)
        host.remember_sections(len(self.graph.nodes))
        return found

    def made_before(self, part: PlanSlice, found: dict[int, Any], treated: bool) -> dict[str, Any]:
        """A slice's links to what earlier nodes made: those that it needs; in a plan whose sections choose their
        history, the node before it, which leads to all others; where history is treated, the start frame's."""
        if any(section.choice for section in self.plan.sections):
            return {BEFORE: found[part.first - self.run].out(0)} if part.first else {}
        needs = {need // self.run * self.run for section in part.sections for need in section.needs}
        if treated:
            needs |= {i // self.run * self.run for i, s in enumerate(self.plan.sections) if START_FRAME in s.made}
        return _made(found[need] for need in sorted(needs) if need in found)

    def latents(self) -> Any:
        """The link to the whole video's latents."""
        part = PlanSlice.within(self.plan, range(self.plan.num_lat_frames))
        inputs = self.outside(part) | _made(self.sections.values())
        return self.graph.node("FramePackGather", "gather", num_lat_frames=self.plan.num_lat_frames, **inputs).out(0)

    def images(self) -> Any:
        """The link to all images: a chain of nodes, each decoding what is new at the video's gapless beginning."""
        maker = {frame: i // self.run * self.run for i, s in enumerate(self.plan.sections) for frame in s.made}
        ready, start, node = list(self.plan.ready()), 0, None
        apart = -(-len(self.sections) // MAX_DECODING)
        for num, first in enumerate(self.sections, 1):
            if num % apart and num < len(self.sections):
                continue
            frames = range(start, ready[min(first + self.run, len(ready)) - 1])
            makers = sorted({maker[frame] for frame in frames if frame in maker})
            if makers:
                before = {"before": node.out(0)} if node else {}
                node = self._decoding(f"frames_{first}", frames, makers, before)
                start = frames.stop
        assert node is not None, "a plan has sections"
        return node.out(1)

    def _decoding(self, name: str, frames: range, makers: Iterable[int], before: dict[str, Any]) -> Any:
        inputs = self.outside(PlanSlice.within(self.plan, frames)) | _made(self.sections[i] for i in makers)
        inputs |= {"start": frames.start, "stop": frames.stop, "last": frames.stop == self.plan.num_lat_frames}
        return self.graph.node("FramePackFrames", name, vae=self.links["vae"], **before, **inputs)

    def outside(self, part: PlanSlice) -> dict[str, Any]:
        """A slice as a literal, with links to the latents from outside that it uses."""
        names = sorted({SLOT_INPUTS.get(slot, "anchors") for slot in part.slots})
        return {"part": part.to_json()} | {name: self.links[name] for name in names}

    def prompts(self) -> dict[str, Any]:
        """Links to conditionings by the input that takes them. Each text is encoded once, under an id of its own."""
        found = {"positive": self.links["positive"]}
        for prompt in (section.prompt for section in self.plan.sections):
            name = input_of(prompt)
            if name not in found and isinstance(prompt, Blend):
                ends = {
                    "conditioning_to": self._encoded(prompt.before),
                    "conditioning_from": self._encoded(prompt.after),
                }
                share = {"conditioning_to_strength": 1 - prompt.weight}
                found[name] = self.graph.node("ConditioningAverage", f"blend_{name}", **ends, **share).out(0)
            elif name not in found:
                found[name] = self._encoded(str(prompt))
        return found

    def _encoded(self, text: str) -> Any:
        name = "prompt_" + hashlib.sha256(text.encode()).hexdigest()[:12]
        return self.graph.node("CLIPTextEncode", name, clip=self.links["clip"], text=text).out(0)


def _made(nodes: Iterable[Any]) -> dict[str, Any]:
    """Any number of nodes' latents as inputs."""
    return {f"{MADE}{i}": node.out(0) for i, node in enumerate(nodes)}
