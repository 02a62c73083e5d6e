"""The built-in model's encoders and its samples, as training takes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..planning.video import make_plan
from ..sampling.guidance import Guidance
from ..schedule.presets import resolve
from ..store.digest import digest
from ..training.command import Means
from ..training.parallel import rank
from ..training.settings import ConfigError
from ..training.trainer import Trainer
from . import builtin
from .generate import Builtin, generate
from .video_files import write_video


class BuiltinEncoder:
    """The built-in VAE and text encoder; latents are normalised."""

    def __init__(self, model: Builtin):
        self.model = model
        weights = {f"vae.{k}": v for k, v in model.vae.state_dict().items()}
        weights |= {f"text.{k}": v for k, v in model.text.state_dict().items()}
        self.name = f"builtin {digest(weights)[:16]}"

    @classmethod
    def load(cls, folder: Path = builtin.ASSETS) -> BuiltinEncoder:
        """From a folder of the built-in model's files."""
        return cls(Builtin.load(folder))

    def latents(self, pixels: Tensor) -> Tensor:
        """pixels ``3 4n+1 h w`` in [-1, 1] -> normalised latents ``16 n+1 h/8 w/8``."""
        batch = pixels[None].contiguous(memory_format=torch.channels_last_3d)
        return self.model.latent_format.process_in(self.model.vae.encode(batch))[0]

    def text(self, caption: str) -> dict[str, Tensor]:
        """Word states and pooled text of a caption."""
        context, pooled = self.model.text(torch.tensor([self.model.tokenizer(caption)]))
        return {"context": context[0], "y": pooled[0]}


def sampler_of(trainer: Trainer) -> Callable[[int], None]:
    """What makes the samples of a run on the built-in latents: a video for each prompt, out/samples/STEP_PROMPT.mp4.

    Raises ConfigError for another model.
    """
    how, folder = trainer.config.samples, trainer.config.run.out / "samples"
    plan = make_plan(resolve(how.schedule), num_lat_frames=how.num_lat_frames, start=False)
    base = Builtin.load()
    if trainer.model.dit.spec.text_dim != base.dit.spec.text_dim:
        raise ConfigError("Samples are available for the built-in model only. Set samples.every to 0.")

    def sample(step: int) -> None:
        dit = trainer.model.dit
        with trainer.mean_in_place():
            model = replace(base, dit=dit)
            latents = generate(
                model, plan, list(how.prompts), start=None, steps=how.steps, seed=0, guidance=Guidance(cfg=how.cfg)
            )
        folder.mkdir(parents=True, exist_ok=True)
        for number, clip in enumerate(latents if rank() == 0 else ()):
            write_video(base.pixels(clip), folder / f"{step:09d}_{number}.mp4")

    return sample


MEANS = Means(encoder=BuiltinEncoder.load, sampler=sampler_of)
