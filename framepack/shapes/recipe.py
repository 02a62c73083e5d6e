"""What a training run of the DiT is made of: schedules, lengths, stages.

A step draws one section of a plan of its stage's mixture; the plans are the planner's own.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

from ..planning.plan import Plan, Section
from ..planning.video import make_plan
from ..schedule.grammar import parse
from ..schedule.presets import TABLE_1

INVERTED, FORWARD = "f1k1_x_g9_f1k1f2k2f16k4_td", "td_f16k4f2k2f1k1_g9"
PINNED, ENDPOINT = "f1k1_x_f16k4f2k2f1k1_g9", "td_f16k4f2k2f1k1_g9_x_f1k1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A schedule's share of the steps. `which` sections of its plan; without a schedule, the one from text alone."""

    share: float
    schedule: str = ""
    num_lat_frames: int = 37  # five seconds
    which: Literal["any", "first"] = "any"

    def plan(self) -> Plan:
        """The plan that sections are drawn from."""
        return plan_of(self.schedule, self.num_lat_frames)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Steps with one optimizer on one mixture.

    `shift` of the noise levels, None for the sampler's own; `frames_shift` of those of a frame from text alone, None
    for the same.
    """

    steps: int
    optimizer: Literal["adamw", "muon"]
    rate: float
    mixture: tuple[Share, ...]
    shift: float | None = None
    frames_shift: float | None = None
    warmup: int = 200
    decay: float = 0.0  # the share of the steps, at the end, over which the rate falls to zero
    teach: int = 0  # steps of teaching the text encoder alone before the stage
    text: bool = True  # does the text encoder learn along?


BROAD = (
    Share(schedule=INVERTED, share=0.58),
    Share(schedule=INVERTED, num_lat_frames=47, share=0.08),
    Share(schedule=FORWARD, num_lat_frames=47, share=0.10),
    Share(schedule=PINNED, num_lat_frames=47, share=0.06),
    Share(schedule=ENDPOINT, share=0.10),
    Share(share=0.08),
)
# Sections that only the text can decide: what the broad mixture learns last.
TEXTUAL = (
    Share(schedule=INVERTED, which="first", share=0.30),
    Share(schedule=INVERTED, share=0.26),
    Share(schedule=INVERTED, num_lat_frames=47, share=0.04),
    Share(schedule=FORWARD, num_lat_frames=47, which="first", share=0.10),
    Share(schedule=FORWARD, num_lat_frames=47, share=0.05),
    Share(schedule=PINNED, num_lat_frames=47, share=0.06),
    Share(schedule=ENDPOINT, share=0.06),
    Share(share=0.13),
)
# Every schedule, and still the sections that only the text can decide.
WIDE = (
    Share(share=0.16),
    Share(schedule=INVERTED, which="first", share=0.24),
    Share(schedule=INVERTED, share=0.20),
    Share(schedule=PINNED, num_lat_frames=47, share=0.04),
    *(Share(schedule=name, num_lat_frames=47, share=0.24 / 30) for name in TABLE_1),
    *(Share(schedule=name, num_lat_frames=37, which="first", share=0.12 / 30) for name in TABLE_1),
)
# The same, with more of what was learned least: first frames, and sections of few frames.
EVEN = (
    Share(share=0.26),
    Share(schedule=INVERTED, which="first", share=0.16),
    Share(schedule=INVERTED, share=0.16),
    Share(schedule=PINNED, num_lat_frames=47, share=0.03),
    *(Share(schedule=name, num_lat_frames=47, share=0.13 / 30) for name in TABLE_1),
    *(Share(schedule=name, num_lat_frames=37, which="first", share=0.11 / 30) for name in TABLE_1),
    *(Share(schedule=name, num_lat_frames=47, share=0.10 / 6) for name in TABLE_1 if "_g1" in name or "_g4" in name),
    *(Share(schedule=name, which="first", share=0.05 / 6) for name in TABLE_1 if "_g1" in name or "_g4" in name),
)
# What is judged: first frames from text, and the schedule of the shipped workflow.
FRAMES = (Share(share=1.0),)
FOCUSED = (
    Share(share=0.35),
    Share(schedule=INVERTED, which="first", share=0.25),
    Share(schedule=INVERTED, share=0.28),
    *(Share(schedule=name, num_lat_frames=47, share=0.12 / 30) for name in TABLE_1),
)
LATER: dict[str, Any] = {"optimizer": "muon", "rate": 2e-3, "shift": 3.0, "warmup": 50}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a training run is made of."""

    stages: tuple[Stage, ...] = (
        Stage(steps=4000, optimizer="adamw", rate=1.2e-3, mixture=BROAD),
        Stage(steps=500, **LATER, mixture=TEXTUAL),
        Stage(steps=3400, **LATER, mixture=TEXTUAL, decay=0.5, teach=500, text=False),
        Stage(steps=6000, **LATER, mixture=WIDE, decay=0.5, text=False),
        Stage(steps=6600, **LATER | {"shift": 2.0}, frames_shift=1.0, mixture=EVEN, decay=0.8, text=False),
        Stage(steps=900, **LATER, frames_shift=1.0, mixture=FRAMES, text=False),
        Stage(steps=3600, **LATER | {"shift": 4.0}, frames_shift=1.0, mixture=FOCUSED, decay=0.9, text=False),
    )
    batch: int = 16  # of sections of 9 frames; up to 4 times as many of fewer
    batch_of_frames: int = 96  # where a section is one frame from text alone
    average: float = 0.999  # decay of the running mean of the weights
    drop_caption: float = 0.1
    history_noise: float = 0.12
    bf16: bool = False  # products of the forward and backward passes
    seed: int = 0

    @property
    def steps(self) -> int:
        """Of all stages together."""
        return sum(stage.steps for stage in self.stages)

    @property
    def positions(self) -> range:
        """The latent frame indices of all its sections and their history."""
        shares = {share for stage in self.stages for share in stage.mixture}
        sections = [section for share in shares for section in share.plan().sections]
        seen = [p for s in sections for c in s.context for p in c.positions] + [
            p for s in sections for p in s.positions
        ]
        return range(min(seen), max(seen) + 1)

    def batch_of(self, section: Section) -> int:
        """How many clips a step on a section takes, so that steps cost alike."""
        return self.batch * min(4, max(1, 9 // section.num_lat_frames))

    def at(self, step: int) -> tuple[Stage, int]:
        """The stage of a step, and the step's number in it."""
        for stage in self.stages:
            if step < stage.steps:
                return stage, step
            step -= stage.steps
        raise AssertionError("the step is beyond the recipe")


@cache
def plan_of(schedule: str, num_lat_frames: int) -> Plan:
    """A plan of the mixture; without a schedule, one whose only section makes the first frame."""
    if schedule:
        return make_plan(parse(schedule), num_lat_frames=num_lat_frames)
    first = make_plan(parse(INVERTED), num_lat_frames=10, start=False)
    return replace(first, num_lat_frames=1, sections=first.sections[:1])


def draw_section(rng: random.Random, mixture: tuple[Share, ...]) -> Section:
    """A section of a plan of the mixture."""
    share = rng.choices(mixture, [each.share for each in mixture])[0]
    sections = share.plan().sections
    return sections[0] if share.which == "first" else rng.choice(sections)
