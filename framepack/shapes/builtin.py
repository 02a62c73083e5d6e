"""The built-in small model: where its files lie and what their metadata says.

Three safetensors files. The DiT's metadata holds `framepack.spec` (what shapes cannot tell),
`framepack.latent_format` and `framepack.training`; the text encoder's holds `framepack.vocabulary`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from .text import Tokenizer

ASSETS = Path(__file__).parent / "assets"
DIT = ASSETS / "diffusion_models" / "framepack_shapes_dit.safetensors"
TEXT = ASSETS / "text_encoders" / "framepack_shapes_text.safetensors"
VAE = ASSETS / "vae" / "framepack_shapes_vae.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentFormat:
    """How raw latents relate to the model's and to colours.

    `mean` and `std` are per channel; `rgb_factors` (channel by r, g, b) and `rgb_bias` turn normalised latents
    into a preview in [-1, 1].
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    rgb_factors: tuple[tuple[float, float, float], ...]
    rgb_bias: tuple[float, float, float]

    def process_in(self, latents: Tensor) -> Tensor:
        """Raw latents ``b c t h w`` -> normalised."""
        mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1).to(latents) for v in (self.mean, self.std))
        return (latents - mean) / std

    def process_out(self, latents: Tensor) -> Tensor:
        """Normalised latents ``b c t h w`` -> raw."""
        mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1).to(latents) for v in (self.mean, self.std))
        return latents * std + mean


def read_metadata(path: Path) -> dict[str, str]:
    """A safetensors file's metadata, empty where it has none."""
    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def read_latent_format(metadata: dict[str, str]) -> LatentFormat | None:
    """The latent format that a DiT's metadata states, if it does."""
    if "framepack.latent_format" not in metadata:
        return None
    return LatentFormat(**json.loads(metadata["framepack.latent_format"]))


def read_tokenizer(metadata: dict[str, str]) -> Tokenizer:
    """The tokenizer that a text encoder's metadata states."""
    vocabulary = json.loads(metadata["framepack.vocabulary"])
    return Tokenizer(tuple(vocabulary["words"]), vocabulary["num_tokens"])
