"""How the built-in model is trained: schedules, lengths, stages. A step draws one section of a plan of its mixture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..schedule.presets import TABLE_1
from ..training.config import Config, Data, History, Model, Run, Share, Stage
from . import builtin

INVERTED, FORWARD = "f1k1_x_g9_f1k1f2k2f16k4_td", "td_f16k4f2k2f1k1_g9"
PINNED, ENDPOINT = "f1k1_x_f16k4f2k2f1k1_g9", "td_f16k4f2k2f1k1_g9_x_f1k1"
SECONDS_5, HISTORY_FULL = 37, 47  # latent frames: a five-second video; and with a full history behind its last section
BATCH = 16
FRAMES = 96  # clips in a step on first frames
DIT = r"^dit\."  # the text encoder stays as it is


def share(weight: float, schedule: str = "", num_lat_frames: int = SECONDS_5, **more: Any) -> Share:
    """A schedule's share; without one, first frames from text alone. Steps on short sections take more clips."""
    if not schedule:
        return Share(weight=weight, batch=FRAMES, tag="frame", **more)
    batch = 64 if "_g1" in schedule else 32 if "_g4" in schedule else 0
    return Share(weight=weight, schedule=schedule, num_lat_frames=num_lat_frames, batch=batch, **more)


BROAD = (
    share(0.58, INVERTED),
    share(0.08, INVERTED, HISTORY_FULL),
    share(0.10, FORWARD, HISTORY_FULL),
    share(0.06, PINNED, HISTORY_FULL),
    share(0.10, ENDPOINT),
    share(0.08),
)
# Sections that only the text can decide: what the broad mixture learns last.
TEXTUAL = (
    share(0.30, INVERTED, sections="first"),
    share(0.26, INVERTED),
    share(0.04, INVERTED, HISTORY_FULL),
    share(0.10, FORWARD, HISTORY_FULL, sections="first"),
    share(0.05, FORWARD, HISTORY_FULL),
    share(0.06, PINNED, HISTORY_FULL),
    share(0.06, ENDPOINT),
    share(0.13),
)
# Every schedule, and still the sections that only the text can decide.
WIDE = (
    share(0.16),
    share(0.24, INVERTED, sections="first"),
    share(0.20, INVERTED),
    share(0.04, PINNED, HISTORY_FULL),
    *(share(0.24 / 30, name, HISTORY_FULL) for name in TABLE_1),
    *(share(0.12 / 30, name, sections="first") for name in TABLE_1),
)
# The same, with more of what was learned least: first frames, and sections of few frames.
EVEN = (
    share(0.26),
    share(0.16, INVERTED, sections="first"),
    share(0.16, INVERTED),
    share(0.03, PINNED, HISTORY_FULL),
    *(share(0.13 / 30, name, HISTORY_FULL) for name in TABLE_1),
    *(share(0.11 / 30, name, sections="first") for name in TABLE_1),
    *(share(0.10 / 6, name, HISTORY_FULL) for name in TABLE_1 if "_g1" in name or "_g4" in name),
    *(share(0.05 / 6, name, sections="first") for name in TABLE_1 if "_g1" in name or "_g4" in name),
)
# What is judged: first frames from text, and the schedule of the shipped workflow.
FIRST = (share(1.0),)
FOCUSED = (
    share(0.35),
    share(0.25, INVERTED, sections="first"),
    share(0.28, INVERTED),
    *(share(0.12 / 30, name, HISTORY_FULL) for name in TABLE_1),
)
# All schedules, images from elsewhere, long histories, and histories in any order. Vanilla's first sections, which the
# text alone directs, and sections of few frames take more than their share.
VANILLA = tuple(name for name in TABLE_1 if "_x_" not in name)
FEW = tuple(name for name in TABLE_1 if "_g1" in name or "_g4" in name)
LONG_HISTORY = tuple(name for name in TABLE_1 if "f512" in name)
REORDERED = (INVERTED, VANILLA[0], PINNED, ENDPOINT)
AWAY_FRAMES, LONG_FRAMES = 80, 136  # latent frames of a shape that leaves and comes back, and of a long history
EVERY = (
    share(0.13),
    share(0.055, INVERTED, sections="first"),
    share(0.075, INVERTED),
    share(0.03, PINNED, HISTORY_FULL),
    share(0.02, PINNED, HISTORY_FULL, sections="first"),
    *(share(0.205 / 30, name, HISTORY_FULL) for name in TABLE_1),
    *(share(0.075 / 30, name, sections="first") for name in TABLE_1),
    *(share(0.075 / 10, name, sections="first") for name in VANILLA),
    *(share(0.13 / 6, name, HISTORY_FULL) for name in FEW),
    *(share(0.03 / 6, name, sections="first") for name in FEW),
    *(share(0.055 / 6, name, LONG_FRAMES, tag="long") for name in LONG_HISTORY),
    *(share(0.045 / 4, name, HISTORY_FULL, order="any") for name in REORDERED),
    *(share(0.0375 / 4, name, AWAY_FRAMES, tag="away") for name in REORDERED),
    *(share(0.0375 / 4, name, AWAY_FRAMES, tag="away", order="any") for name in REORDERED),
)
LATER: dict[str, Any] = {"optimizer": "muon", "rate": 2e-3, "weight_decay": 0.01, "shift": 3.0, "warmup": 50}


def flat(mixture: tuple[Share, ...]) -> tuple[Share, ...]:
    """The mixture with the noise levels of first frames as they are."""
    return tuple(share if share.schedule else replace(share, shift=1.0) for share in mixture)


STAGES = (
    Stage(steps=4000, optimizer="adamw", rate=1.2e-3, weight_decay=0.01, warmup=200, mixture=BROAD),
    Stage(steps=500, **LATER, mixture=TEXTUAL),
    Stage(steps=3400, **LATER, mixture=TEXTUAL, decay=0.5, train=DIT),
    Stage(steps=6000, **LATER, mixture=WIDE, decay=0.5, train=DIT),
    Stage(steps=6600, **LATER | {"shift": 2.0}, mixture=flat(EVEN), decay=0.8, train=DIT),
    Stage(steps=900, **LATER, mixture=flat(FIRST), train=DIT),
    Stage(steps=3600, **LATER | {"shift": 4.0}, mixture=flat(FOCUSED), decay=0.9, train=DIT),
    Stage(steps=12000, **LATER, mixture=flat(EVERY), decay=0.7, train=DIT),
)


def enlarged(stage: Stage, times: int) -> Stage:
    """The stage with batches so many times as large."""
    mixture = tuple(replace(share, batch=times * (share.batch or BATCH)) for share in stage.mixture)
    return replace(stage, mixture=mixture)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The run. `teach` has the steps in which the text encoder is taught by itself, by the stage that follows."""

    config: Config
    teach: dict[int, int]


def recipe(
    latents: Path,
    out: Path,
    stages: tuple[Stage, ...] = STAGES,
    codebook: Path | None = None,
    compute: Literal["fp32", "bf16"] = "fp32",
    **run: Any,
) -> Recipe:
    """The recipe of the built-in model; with a codebook for +d. `run` replaces settings of the run."""
    config = Config(
        model=Model(path=builtin.DIT, compute=compute, checkpointing=False),
        data=Data(cache=latents, caption_dropout=0.1),
        run=Run(out=out, **{"batch": BATCH, "ema": 0.999, "report_every": 100} | run),
        stage=stages,
        history=History(noise=(0.0, 0.12), codebook=codebook),
    )
    return Recipe(config=config, teach={2: 500} if stages is STAGES else {})
