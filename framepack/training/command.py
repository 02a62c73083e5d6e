"""``python -m framepack train CONFIG.toml``: from a configuration to a finished file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..checkpoints.files import identity
from . import fitting
from .adapters import Adapted, adapt
from .cache import Index, Texts
from .clips import Clips
from .config import Config
from .console import Printed
from .elsewhere import encode_through
from .encoding import Encoder, encode
from .exporting import export_lora, export_model
from .parallel import alone, rank, shard, share_tokens, start, wait
from .presets import load
from .reports import read_log, summary
from .samples import Show, as_latents, sampler_of
from .trainees import Recompute
from .trainees import load as load_trainee
from .trainer import Trainer

LORA, MODEL = "lora.safetensors", "model.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What training takes from outside: the encoder of a checkpoint's folders, and what writes samples as videos.

    Without the latter, or where it gives None, samples are written as latents.
    """

    encoder: Callable[[Path], Encoder]
    videos: Callable[[Trainer], Show | None] | None = None

    def sampler(self, trainer: Trainer) -> Callable[[int], None] | None:
        """What makes a run's samples after a step; None where it makes none. Raises FramePackError."""
        if not trainer.config.samples.every:
            return None
        show = self.videos(trainer) if self.videos else None
        return sampler_of(trainer, show or as_latents(trainer.clips))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A run that is ready to start."""

    config: Config
    trainer: Trainer
    adapters: dict[str, Adapted]
    device: torch.device

    def place(self) -> None:
        """Move the model to its device, or share it out over the processes."""
        if alone():
            self.trainer.model.to(self.device)
            return
        if self.config.run.sequence > 1:
            share_tokens(self.trainer.model.dit, self.device, self.config.run.sequence)
        shard(self.trainer.model.dit, self.device, self.config.model.weights)

    def export(self, target: Path) -> Path:
        """Write what was trained into a new file, or over one that an earlier export of this run wrote."""
        part = target.with_name(target.name + ".new")
        part.unlink(missing_ok=True)
        if self.config.lora:
            export_lora(self.config.run.out, self.adapters, part, self.config.lora.prefix)
        else:
            export_model(self.config.run.out, self.config.model.path, part)
        part.replace(target)
        return target


def index_of(config: Config, means: Means) -> Index:
    """The index of the data's cache, which is filled first where a folder is given."""
    if config.data.folder is not None and rank() == 0:
        if config.host:
            encode_through(config, config.host)
        else:
            encode(config.data, means.encoder(config.model.path), config.history.saturates, config.samples.prompts)
    wait()
    return Index.read(config.data.cache)


def prepare(config: Config, means: Means) -> Prepared:
    """Join the other processes, encode the data, read the model, and build the trainer. Raises FramePackError."""
    device = start(config.model.device)
    index = index_of(config, means)
    trainee, backbone = load_trainee(config.model)
    base = identity(config.model.path.name, trainee.state_dict())
    adapters = adapt(trainee.dit, config.lora, backbone.in_fp8, config.run.seed) if config.lora else {}
    recompute = Recompute(trainee.dit, config.model.checkpointing)
    clips, words = Clips(config.data.cache), Texts(config.data.cache, index.encoder)
    return Prepared(
        config=config,
        trainer=Trainer(config, trainee, clips, words, base, recompute),
        adapters=adapters,
        device=device,
    )


def train(path: Path, means: Means) -> str:
    """Run a configuration to its end, or until Ctrl-C; gives a summary for people. Raises FramePackError."""
    config = load(path)
    start(config.model.device)
    with Printed(sys.stdout if rank() == 0 else None) as printed:
        prepared = prepare(config, means)
        trainer = prepared.trainer
        left_out = trainer.clips.index.left_out
        printed.say(f"{len(trainer.clips)} clips, {len(left_out)} files left out")
        there = fitting.available(prepared.device, fitting.size_of(trainer.model))
        printed.say(str(fitting.check(trainer, there)))
        prepared.place()
        sample = means.sampler(trainer)
        complete = trainer.run(printed.stopped, [printed], sample=sample)
    if rank():
        return ""
    records = read_log(config.run.out / "log.jsonl")
    lines = [summary(records[-max(len(records) // 10, 1) :])]
    lines += [f"left out: {name}: {reason}" for name, reason in left_out.items()]
    if complete:
        target = prepared.export(config.run.out / (LORA if prepared.adapters else MODEL))
        lines.append(f"done: {target}")
    else:
        lines.append(f"stopped after step {trainer.done} of {config.steps}; run the same command to go on")
    return "\n".join(lines)


def export(path: Path, target: Path, means: Means) -> str:
    """Write the newest state of a configuration's run into a file. Raises FramePackError."""
    config = load(path)
    prepared = prepare(config, means)
    return f"done: {prepared.export(target)}"
