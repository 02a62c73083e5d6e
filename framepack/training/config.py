"""What a training run is made of. Each class is a table of the TOML file; defaults are the paper's (section 4.2)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch

from ..schedule.presets import resolve
from .settings import ConfigError

Range = tuple[float, float]
ADAPTERS = r"\.lora_[AB]\."  # names of adapters' weights


def _at_least(where: str, value: float, least: float) -> None:
    if not (value >= least and math.isfinite(value)):
        raise ConfigError(f"{where} must be {least:g} or more; got {value:g}.")


def _within(where: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{where} must be from {low:g} to {high:g}; got {value:g}.")


def _range(where: str, pair: Range, low: float, high: float) -> None:
    _within(f"{where}[0]", pair[0], low, high)
    _within(f"{where}[1]", pair[1], pair[0], high)


def _pattern(where: str, text: str) -> None:
    try:
        re.compile(text)
    except re.error as fault:
        raise ConfigError(f"{where} is no regular expression: {fault}; got {text!r:.60}.") from fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The checkpoint to train, a FramePack one, and how it computes.

    `compute` is the dtype of the model and of its gradients. With "bf16", `weights` "fp32" keeps a master copy of the
    trained weights; "bf16" keeps none and rounds each update stochastically. `guidance` goes to models that take one.
    """

    path: Path
    compute: Literal["fp32", "bf16"] = "bf16"
    weights: Literal["fp32", "bf16"] = "fp32"
    checkpointing: bool = True
    causal_history: bool = False
    guidance: float = 10.0
    device: str = ""

    @property
    def dtype(self) -> torch.dtype:
        """Of the model."""
        return torch.bfloat16 if self.compute == "bf16" else torch.float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The clips. `folder` holds videos and images with captions; `cache` their latents and text, encoded once.

    A folder is encoded by the built-in model's encoders, or with a table [host] by ComfyUI's. Without one, `cache` must
    be complete already. `base` is the side of a square picture in pixels, from which the aspect buckets follow;
    `longest` cuts videos into clips of so many seconds. `faults` says what to do with files that cannot be used.
    """

    cache: Path
    folder: Path | None = None
    base: int = 640
    fps: float = 30.0
    longest: float = 30.0
    caption_dropout: float = 0.1
    faults: Literal["skip", "stop"] = "skip"

    def __post_init__(self) -> None:
        _within("data.base", self.base, 64, 4096)
        _within("data.fps", self.fps, 1, 240)
        _at_least("data.longest", self.longest, 0.1)
        _within("data.caption_dropout", self.caption_dropout, 0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """ComfyUI, whose VAE and text encoders encode the folder in a process of its own.

    `vae` and `text_encoders` are files that it lists, or paths. `path` is its folder; without it, the environment's
    COMFYUI_PATH. `python` is its interpreter; without it, that of its own environment, else this one. `arguments` are
    ComfyUI's own, such as "--cpu" or "--base-directory".
    """

    vae: str
    text_encoders: tuple[str, ...]
    path: Path | None = None
    python: str = ""
    arguments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.text_encoders:
            raise ConfigError("host.text_encoders must name a file or two; got none.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One schedule's share of a stage's steps, as a weight against the other shares.

    Without a `schedule`, sections are single first frames from text alone. `num_lat_frames` fixes the length of the
    planned video; 0 draws any whole number of sections that fits the clip. `sections` "first" trains the section that
    is made first only. `start` false plans without a start image. `anchors` plans so many key frames ahead. `batch` and
    `shift` replace the run's; 0 keeps them. `order` "any" fills the history's slots with any finished frames in any
    order, as packing by similarity does. `tag` takes only clips of that tag.
    """

    schedule: str = ""
    weight: float = 1.0
    num_lat_frames: int = 0
    sections: Literal["any", "first"] = "any"
    start: bool = True
    gap: str = ""
    anchors: int = 0
    batch: int = 0
    shift: float = 0.0
    order: Literal["time", "any"] = "time"
    tag: str = ""

    def __post_init__(self) -> None:
        _at_least("mixture.weight", self.weight, 0)
        for name in ("num_lat_frames", "anchors", "batch", "shift"):
            _at_least(f"mixture.{name}", getattr(self, name), 0)
        if self.schedule:
            resolve(self.schedule)

    @property
    def label(self) -> str:
        """Its name in reports."""
        return str(resolve(self.schedule)) if self.schedule else "first frame"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Steps with one optimizer on one mixture.

    `train` is "full", "packing" (the packing layers only), or a regular expression over parameter names; LoRA runs
    train their adapters whatever it says. The rate rises over `warmup` steps and falls to zero over the last `decay`
    share. `shift` fixes the shift of the noise levels; 0 is Flux's dynamic shift.
    """

    steps: int
    mixture: tuple[Share, ...]
    train: str = "full"
    optimizer: Literal["adafactor", "adamw", "muon"] = "adafactor"
    rate: float = 1e-5
    weight_decay: float = 0.0
    warmup: int = 0
    decay: float = 0.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        _at_least("stage.steps", self.steps, 1)
        _at_least("stage.rate", self.rate, 0)
        _at_least("stage.weight_decay", self.weight_decay, 0)
        _at_least("stage.warmup", self.warmup, 0)
        _within("stage.decay", self.decay, 0, 1)
        _at_least("stage.shift", self.shift, 0)
        _pattern("stage.train", self.train)
        if not sum(share.weight for share in self.mixture):
            raise ConfigError("stage.mixture needs a share with a weight above 0, such as schedule = 'inverted'.")

    def rate_at(self, step: int) -> float:
        """The rate of one of its steps, counted from its beginning."""
        falling = (self.steps - step) / (self.decay * self.steps) if self.decay else 1.0
        rising = (step + 1) / self.warmup if self.warmup else 1.0
        return self.rate * min(1.0, rising, falling)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What is done to the history that a section sees, so that generation's faults do not add up. All off by default.

    `noise`, `downsample` and `saturation` are ranges that each clip draws from; the start frame is left alone.
    `dropout` is the chance that a context group is blank, `corrupted` the share of clips that the ranges act on.
    `codebook` is a file of centroids: history is discretized with it (+d), the start frame left alone.
    """

    noise: Range = (0.0, 0.0)
    downsample: Range = (1.0, 1.0)
    saturation: Range = (1.0, 1.0)
    dropout: float = 0.0
    corrupted: float = 1.0
    codebook: Path | None = None

    def __post_init__(self) -> None:
        _range("history.noise", self.noise, 0, 1)
        _range("history.downsample", self.downsample, 0.05, 1)
        _range("history.saturation", self.saturation, 0, 4)
        _within("history.dropout", self.dropout, 0, 1)
        _within("history.corrupted", self.corrupted, 0, 1)

    @property
    def saturates(self) -> bool:
        """Does it need the clips in grey, too?"""
        return self.saturation != (1.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """Low-rank adapters in place of the weights themselves.

    `targets` matches names of linear layers; without it, those of attention and feed-forward. `rank_pattern` and
    `alpha_pattern` are regular expressions to values of their own. `base` "fp8" freezes the model's matrices in float8.
    `prefix` stands before the names in the file: diffusers wants "transformer.", and so does ComfyUI's own loader for
    HunyuanVideo; for Wan that one wants "diffusion_model.". The FramePack LoRA node takes both.
    """

    rank: int = 16
    alpha: float = 16.0
    targets: str = ""
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    base: Literal["", "fp8"] = ""
    prefix: Literal["transformer.", "diffusion_model."] = "transformer."

    def __post_init__(self) -> None:
        for name, rank in {"rank": self.rank, **self.rank_pattern}.items():
            _at_least(f"lora.{name}", rank, 1)
        for pattern in (self.targets, *self.rank_pattern, *self.alpha_pattern):
            _pattern("lora", pattern)


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Videos that are made during training, every so many steps; 0 makes none.

    Without `prompts`, the first clip's caption. `start` begins them with the first clip's first frame, which models
    trained on start images need. `height` and `width` are in pixels; 0 takes the first clip's.
    """

    every: int = 0
    prompts: tuple[str, ...] = ()
    schedule: str = "inverted"
    num_lat_frames: int = 19
    steps: int = 16
    cfg: float = 1.0
    start: bool = False
    height: int = 0
    width: int = 0

    def __post_init__(self) -> None:
        for name in ("every", "height", "width"):
            _at_least(f"samples.{name}", getattr(self, name), 0)
        for name in ("num_lat_frames", "steps"):
            _at_least(f"samples.{name}", getattr(self, name), 1)
        resolve(self.schedule)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How the run goes: batch, gradients, averages, and what it leaves behind.

    `batch` clips a step over all processes, `at_once` of them together in each (0: all). `clip` bounds the gradient's
    norm. `ema` is the decay of the running mean of the weights; 0 keeps none. `keep` finished states stay on disk.
    Losses are read from the device every `read_every` steps, since reading waits for it; so long a loss that is not
    finite can stay unnoticed. `skips` steps may have a loss or a gradient that is not finite; the gradient of such a
    step counts as zero. With 0 a run stops at the first such loss. `sequence` processes share each clip's tokens, so
    that a clip takes that much less memory in each.
    """

    out: Path
    seed: int = 0
    batch: int = 1
    at_once: int = 0
    clip: float = 0.5
    ema: float = 0.0
    save_every: int = 250
    keep: int = 2
    report_every: int = 10
    tensorboard: bool = False
    other_world: bool = False
    read_every: int = 1
    skips: int = 0
    sequence: int = 1

    def __post_init__(self) -> None:
        counts = ("batch", "save_every", "keep", "report_every", "read_every", "sequence")
        for name, least in (("at_once", 0), ("skips", 0), *((name, 1) for name in counts)):
            _at_least(f"run.{name}", getattr(self, name), least)
        _at_least("run.clip", self.clip, 0)
        _within("run.ema", self.ema, 0, 0.999999)


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run."""

    model: Model
    data: Data
    run: Run
    stage: tuple[Stage, ...]
    history: History = History()
    lora: Lora | None = None
    samples: Samples = Samples()
    host: Host | None = None

    def __post_init__(self) -> None:
        if not self.stage:
            raise ConfigError("The configuration needs a [[stage]] with its steps and its mixture.")

    def trains(self, stage: Stage) -> str:
        """What a stage trains, as `Stage.train` says it; with LoRA the adapters."""
        return ADAPTERS if self.lora else stage.train

    @cached_property
    def steps(self) -> int:
        """Of all stages together."""
        return sum(stage.steps for stage in self.stage)

    def at(self, step: int) -> tuple[int, Stage, int]:
        """The stage of a step: its index, itself, and the step's number in it."""
        for index, stage in enumerate(self.stage):
            if step < stage.steps:
                return index, stage, step
            step -= stage.steps
        raise AssertionError("the step is beyond the run")
