"""The built-in model's encoders, and its samples as videos, as training takes them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..checkpoints.model_file import ModelFile
from ..store.digest import digest
from ..training.command import Means
from ..training.samples import Show
from ..training.settings import ConfigError
from ..training.trainer import Trainer
from . import builtin
from .generate import Builtin
from .video_files import write_video


class BuiltinEncoder:
    """The built-in VAE and text encoder; latents are normalised."""

    def __init__(self, model: Builtin):
        self.model = model
        weights = {f"vae.{k}": v for k, v in model.vae.state_dict().items()}
        weights |= {f"text.{k}": v for k, v in model.text.state_dict().items()}
        self.name = f"builtin {digest(weights)[:16]}"
        zeros, ones = (torch.full((1, model.dit.spec.in_channels, 1, 1, 1), value) for value in (0.0, 1.0))
        shift = model.latent_format.process_out(zeros)
        self.scale = (model.latent_format.process_out(ones) - shift).flatten().tolist()
        self.shift = shift.flatten().tolist()

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


def encoder_for(model: Path) -> BuiltinEncoder:
    """The encoder of a checkpoint's folder. Raises ConfigError where it is not of the built-in model's latents."""
    encoder, spec = BuiltinEncoder.load(), ModelFile.open(model).spec
    if spec.text_dim != encoder.model.dit.spec.text_dim:
        raise ConfigError(
            f"data.folder is encoded for the built-in model, and {model.name} is another. Name its VAE and text "
            "encoders in a table [host], which encodes through ComfyUI, or fill data.cache and leave folder out."
        )
    return encoder


def videos_of(trainer: Trainer) -> Show | None:
    """What writes samples as videos, .mp4, where the run's clips are the built-in encoder's; else None."""
    encoder = BuiltinEncoder.load()
    if trainer.clips.index.encoder != encoder.name:
        return None

    def show(latents: Tensor, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(encoder.model.pixels(latents), path.with_name(path.name + ".mp4"))

    return show


MEANS = Means(encoder=encoder_for, videos=videos_of)
