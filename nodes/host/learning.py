"""A LoRA trained inside the host: on its device, with its VAE and text encoder, shown on the node, and interruptible.

Dims: c channels, t h w latent grid, n frames.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from PIL.Image import Image, fromarray
from safetensors.torch import load_file
from torch import Tensor

from ...framepack.models.backbones import backbone_with
from ...framepack.pictures.loss_picture import draw_losses
from ...framepack.shapes.video_files import write_video
from ...framepack.store.digest import digest
from ...framepack.training import command, fitting
from ...framepack.training.config import Config
from ...framepack.training.encoding import encode
from ...framepack.training.reports import Record, read_log
from ...framepack.training.samples import Show, as_latents, sampler_of
from ...framepack.training.states import identity
from .encoding import HostEncoder
from .jobs import output_path
from .runs import current_run, shown_on
from .sampling import latent_format

log = logging.getLogger(__name__)
DRAWN_EVERY = 2.0  # seconds between pictures
FRAMES = 7  # of a sample that are shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What training gives: the LoRA's file and tensors, each step's loss, and a picture of the run."""

    path: Path
    tensors: dict[str, Tensor]
    losses: list[float]
    picture: Image
    left_out: dict[str, str]


def learn(model: Any, vae: Any, clip: Any, config: Config) -> Learned:
    """Encode a configuration's folder, train its LoRA or go on with it, and write the file.

    Raises FramePackError, and what the host raises where the run was cancelled: its state is saved then.
    """
    fmt, spec = latent_format(model), model.model.diffusion_model.spec
    encoder = HostEncoder(vae, clip, backbone_with(spec), spec, fmt)
    index = encode(config.data, encoder, prompts=config.samples.prompts)
    out = config.run.out / digest({"run": identity(config), "clips": repr(index.clips)})[:12]
    config = replace(config, data=replace(config.data, folder=None), run=replace(config.run, out=out))
    comfy.model_management.unload_all_models()
    shown = Shown(config)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            path = _trained(config, shown, videos_of(vae, fmt, shown, config.data.fps))
    finally:
        gc.collect()
        comfy.model_management.soft_empty_cache()
    picture = shown.picture()
    return Learned(
        path=path, tensors=load_file(path), losses=shown.losses, picture=picture, left_out=dict(index.left_out)
    )


def _trained(config: Config, shown: Shown, show: Show) -> Path:
    """Train to the end; the LoRA's file. Raises as `learn`."""
    run = command.prepare(config, command.Means(encoder=_no_encoder))
    there = fitting.available(run.device, fitting.size_of(run.trainer.model))
    log.info("%s", fitting.check(run.trainer, there))
    run.place()
    sample = None
    if config.samples.every:
        latents = as_latents(run.trainer.clips)

        def either(made: Tensor, path: Path) -> None:
            try:
                show(made, path)
            except comfy.model_management.OOM_EXCEPTION:
                log.warning("There is no memory left to decode the sample; its latents are saved instead.")
                latents(made, path)

        sample = sampler_of(run.trainer, either)
    if not run.trainer.run(shown.stopped, [shown], sample=sample):
        raise comfy.model_management.InterruptProcessingException
    return run.export(output_path(f"loras/{config.run.out.parent.name}", ".safetensors"))


def _no_encoder(model: Path) -> Any:
    raise AssertionError("the folder is encoded already")


@dataclass(slots=True)
class Shown:
    """A run on its node: a bar, a line of text, and a picture of the losses and the latest samples."""

    config: Config
    losses: list[float] = field(default_factory=list)
    samples: dict[str, list[Image]] = field(default_factory=dict)
    cancelled: bool = False
    drawn: float = 0.0

    def __post_init__(self) -> None:
        self.losses = [record.loss for record in read_log(self.config.run.out / "log.jsonl")]

    def stopped(self) -> bool:
        """Has the user cancelled?"""
        return self.cancelled or comfy.model_management.processing_interrupted()

    def step(self, record: Record, line: str) -> None:
        """A step is done. The host's exception for a cancelled run waits until the state is saved."""
        del self.losses[record.step - 1 :]  # a run that goes on has the log of the one before
        self.losses.append(record.loss)
        if self.stopped():
            return
        now, preview = time.monotonic(), None
        if now - self.drawn >= DRAWN_EVERY or record.step == self.config.steps:
            self.drawn, preview = now, ("JPEG", self.picture(), 960)
        bar = comfy.utils.ProgressBar(self.config.steps)
        try:
            bar.update_absolute(record.step, preview=preview)
        except comfy.model_management.InterruptProcessingException:
            self.cancelled = True
        if line:
            current_run().say(line, shown_on())

    def picture(self) -> Image:
        """The losses so far, and a row for each prompt's latest sample."""
        return draw_losses(self.losses, self.config.steps, list(self.samples.values()))


def videos_of(vae: Any, fmt: Any, shown: Shown, fps: float) -> Show:
    """Decodes samples into .mp4 files, and shows some of their frames on the node."""

    def show(latents: Tensor, path: Path) -> None:
        with torch.inference_mode():
            frames = vae.decode(fmt.process_out(latents[None])).flatten(0, -4).clamp(0, 1).cpu()  # n h w c
        comfy.model_management.unload_all_models()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(frames.movedim(-1, 1), path.with_name(path.name + ".mp4"), fps)
        shown.samples[path.name.rpartition("_")[2]] = _pictures(frames)

    return show


def _pictures(frames: Tensor) -> Sequence[Image]:
    """A few frames ``h w c`` that lie evenly spread, from the first to the last."""
    picked = torch.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().long().tolist()
    return [fromarray((frames[i] * 255).round().byte().numpy()) for i in picked]
