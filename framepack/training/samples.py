"""Videos that are made during training, through the engine: what the weights do by now, for a person to look at.

Dims: b batch, c channels, t h w latent grid.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from ..errors import FramePackError
from ..models.backbones import backbone_with
from ..packing.codebook import Codebook
from ..packing.treatment import Treatment
from ..pipeline import Settings, SolverSampler, generate
from ..planning.plan import Plan
from ..planning.video import make_plan
from ..sampling.denoiser import DitDenoiser
from ..sampling.guidance import Guidance
from ..schedule.presets import resolve
from .cache import Clip, write_whole
from .clips import Clips
from .config import Samples
from .parallel import rank
from .settings import ConfigError
from .trainer import Trainer

log = logging.getLogger(__name__)
FOLDER = "samples"  # of a run
LATENT_VERSION = "latent_format_version_0"  # ComfyUI's LoadLatent takes latents with this key as they are

Show = Callable[[Tensor, Path], None]  # normalised latents ``c t h w`` into a file, given without its ending


def sampler_of(trainer: Trainer, show: Show) -> Callable[[int], None]:
    """What makes a run's samples after a step: a video for each prompt, out/samples/STEP_PROMPT.

    Raises FramePackError where they cannot be made, before the run begins.
    """
    how, folder = trainer.config.samples, trainer.config.run.out / FOLDER
    clip = trainer.clips.index.clips[0]
    prompts = how.prompts or clip.captions[:1]
    plan = _plan(trainer, how, clip)
    anchors: dict[int | str, Tensor] = {0: trainer.clips.read(clip, 1)[None]} if how.start else {}
    for prompt in ("", *prompts):
        trainer.words([prompt])  # or its text is not in the cache

    def sample(step: int) -> None:
        log.info("samples of step %d", step)
        with trainer.mean_in_place():
            made = [_sampled(trainer, plan, prompt, anchors) for prompt in prompts]
        for number, latents in enumerate(made if rank() == 0 else ()):
            show(latents, folder / f"{step:09d}_{number}")

    return sample


def _plan(trainer: Trainer, how: Samples, clip: Clip) -> Plan:
    """The plan of the samples, by default in the size of the first clip. Raises FramePackError."""
    spatial, (high, wide) = trainer.geometry.spatial, clip.grid
    size = {"height": how.height or spatial * high, "width": how.width or spatial * wide}
    if how.start and (size["height"], size["width"]) != (spatial * high, spatial * wide):
        raise ConfigError(
            f"samples.start takes the first frame of {clip.file}, whose size is {spatial * wide}x{spatial * high}; got "
            f"{size['width']}x{size['height']}. Leave samples.height and samples.width out, or set start to false."
        )
    try:
        return make_plan(
            resolve(how.schedule),
            num_lat_frames=how.num_lat_frames,
            start=how.start,
            geometry=trainer.geometry,
            **size,
        )
    except FramePackError as fault:
        raise ConfigError(f"The samples cannot be made: {fault}") from fault


def _sampled(trainer: Trainer, plan: Plan, prompt: str, anchors: dict[int | str, Tensor]) -> Tensor:
    """One video of the model as it is: normalised latents ``c t h w`` on the CPU."""
    how, model, clips = trainer.config.samples, trainer.model, trainer.clips
    positive, negative = (model.condition(trainer.words([text]), 1) for text in (prompt, ""))
    denoiser = DitDenoiser(
        dit=model.dit,
        prompts={None: positive},
        negative=negative,
        dtype=trainer.config.model.dtype,
        device=trainer.device,
        causal=model.causal,
    )
    settings = Settings(
        seed=trainer.config.run.seed,
        steps=how.steps,
        patch=trainer.geometry.patch,
        treatment=_treatment(trainer, clips),
        outside_noise=backbone_with(model.dit.spec).outside_noise,
    )
    grid = trainer.geometry.latent_grid(plan.height or 0, plan.width or 0)
    like = torch.empty(1, clips.index.clips[0].shape[0], 1, *grid)
    sampler = SolverSampler(denoiser=denoiser, guidance=Guidance(cfg=how.cfg))
    return generate(plan, anchors, sampler, settings, like=like)[0].float().cpu()


def _treatment(trainer: Trainer, clips: Clips) -> Treatment:
    """What sampling does to history of what training does: discretizing, and causal attention."""
    path = trainer.config.history.codebook
    book = None if path is None else replace(Codebook.load(path), centroids=clips.centroids(path))
    return Treatment(codebook=book, causal=trainer.model.causal)


def as_latents(clips: Clips) -> Show:
    """Writes samples as latents that ComfyUI's LoadLatent reads, unscaled where the cache says how they are scaled."""
    index = clips.index
    scale = torch.tensor(index.scale or [1.0]).view(-1, 1, 1, 1)
    shift = torch.tensor(index.shift or [0.0]).view(-1, 1, 1, 1)

    def show(latents: Tensor, path: Path) -> None:
        raw = (latents * scale + shift)[None].contiguous()
        write_whole(
            path.with_name(path.name + ".latent"), save({"latent_tensor": raw, LATENT_VERSION: torch.tensor([])})
        )

    return show
