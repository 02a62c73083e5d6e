"""Make videos with the built-in model without a host, many at a time.

The networks may be on any device; latents and frames are on the CPU between them.
Dims: b batch, c channels, t h w latent grid.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from .. import pipeline
from ..models.hunyuan import HunyuanDiT, HunyuanSpec
from ..packing.treatment import UNTREATED, Treatment
from ..pipeline import Progress, Settings, SolverSampler
from ..planning.plan import Plan
from ..sampling.denoiser import DitDenoiser
from ..sampling.guidance import UNGUIDED, Guidance
from ..vae.wan import WanVAE
from . import builtin
from .encode import load_vae
from .text import TextEncoder, Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Builtin:
    """The built-in model, whole."""

    dit: HunyuanDiT
    text: TextEncoder
    tokenizer: Tokenizer
    vae: WanVAE
    latent_format: builtin.LatentFormat

    @staticmethod
    def add_options(parser: argparse.ArgumentParser) -> None:
        """The options by which a command chooses a model and its device."""
        parser.add_argument("--assets", type=Path, default=builtin.ASSETS, help="folder of the model's files")
        parser.add_argument("--device", default="cpu", help="such as cuda")

    @classmethod
    def load(cls, folder: Path = builtin.ASSETS, device: str = "cpu") -> Builtin:
        """Read the three files in a folder; DiT and VAE go to the device, the text encoder stays on the CPU."""
        files = (builtin.DIT, builtin.TEXT, builtin.VAE)
        dit_file, text_file, vae_file = (folder / path.relative_to(builtin.ASSETS) for path in files)
        weights = {k: v.float() for k, v in load_file(dit_file).items()}
        metadata = builtin.read_metadata(dit_file)
        dit = HunyuanDiT(HunyuanSpec.from_shapes({k: v.shape for k, v in weights.items()}, metadata))
        dit.load_state_dict(weights)
        words = {k: v.float() for k, v in load_file(text_file).items()}
        text = TextEncoder.from_shapes({k: v.shape for k, v in words.items()})
        text.load_state_dict(words)
        latent_format = builtin.read_latent_format(metadata)
        assert latent_format is not None, "the built-in model states its latent format"
        return cls(
            dit=dit.eval().requires_grad_(False).to(device),
            text=text.eval().requires_grad_(False),
            tokenizer=builtin.read_tokenizer(builtin.read_metadata(text_file)),
            vae=load_vae(vae_file, device),
            latent_format=latent_format,
        )

    @property
    def device(self) -> torch.device:
        """Where DiT and VAE are."""
        return next(self.dit.parameters()).device

    @torch.no_grad()
    def denoiser(self, captions: list[str], told: Mapping[str, list[str]], causal: bool = False) -> DitDenoiser:
        """For b captions at once, and b for each prompt of a plan's own sections. The negative prompt is empty.

        With `causal` history sees history only.
        """
        said = {None: captions, **told}
        return DitDenoiser(
            dit=self.dit,
            prompts={name: self.encoded(words) for name, words in said.items()},
            negative=self.encoded([""] * len(captions)),
            causal=causal,
            device=self.device,
        )

    def encoded(self, captions: list[str]) -> dict[str, Tensor]:
        """Word states ``b l d`` and pooled text ``b p``."""
        context, pooled = self.text(torch.tensor(list(map(self.tokenizer, captions))))
        return {"context": context, "y": pooled}

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """Frames ``b 3 t h w`` in [0, 1] -> raw latents ``b c t' h/8 w/8``."""
        return self.vae.encode(video.to(self.device) * 2 - 1).cpu()

    @torch.no_grad()
    def pixels(self, clip: Tensor) -> Tensor:
        """Normalised latents ``c t h w`` -> frames ``4t-3 3 8h 8w`` in [0, 1]."""
        raw = self.latent_format.process_out(clip[None]).to(self.device)
        video = self.vae.decode(raw.contiguous(memory_format=torch.channels_last_3d))
        return (video[0].transpose(0, 1) / 2 + 0.5).clamp(0, 1).cpu()


@torch.no_grad()
def generate(
    model: Builtin,
    plan: Plan,
    captions: list[str],
    *,
    start: Tensor | None,
    steps: int,
    seed: int,
    guidance: Guidance = UNGUIDED,
    grid: int = 8,
    told: Mapping[str, list[str]] | None = None,
    progress: Progress | None = None,
    treatment: Treatment = UNTREATED,
) -> Tensor:
    """Run a plan for b captions at once: normalised latents ``b c t h w``.

    A plan whose history is chosen by latents runs for one caption after another, with the noise of the batch.

    `start` holds the raw first latents, ``b c 1 h w``, where the plan has a start anchor. Section i's noise comes
    from (seed, i). Text guidance leads away from the empty caption. `told` has b captions for each prompt of the
    plan's own sections, by that prompt. `treatment` is what is done to history, its codebook of raw latents.
    """
    chooses = any(section.choice for section in plan.sections)
    items = [slice(i, i + 1) for i in range(len(captions))] if chooses else [slice(None)]
    treatment, made = treatment.within(model.latent_format.process_in), []
    for some in items:
        anchors = {} if start is None else {0: model.latent_format.process_in(start[some])}
        said = {prompt: words[some] for prompt, words in (told or {}).items()}
        denoiser = model.denoiser(captions[some], said, causal=treatment.causal)
        like = torch.empty(len(captions[some]), model.dit.spec.in_channels, 1, grid, grid)
        item = (some.start, len(captions)) if chooses else None
        settings = Settings(seed=seed, steps=steps, treatment=treatment, item=item)
        sampler = SolverSampler(denoiser=denoiser, guidance=guidance)
        made.append(pipeline.generate(plan, anchors, sampler, settings, like=like, progress=progress))
    return torch.cat(made)
