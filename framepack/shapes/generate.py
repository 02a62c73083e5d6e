"""Make videos with the built-in model without a host, many at a time.

Dims: b batch, c channels, t h w latent grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..models.hunyuan import HunyuanDiT, HunyuanSpec
from ..packing.history import ContextGroup
from ..pipeline import run_plan, section_noise
from ..planning.plan import Plan, Section
from ..sampling.guidance import HISTORY, TEXT, UNGUIDED, Guidance, blank, sees
from ..sampling.sigmas import flow_sigmas
from ..sampling.solvers import euler
from ..units import BASE
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

    @classmethod
    def load(cls, folder: Path = builtin.ASSETS) -> Builtin:
        """Read the three files in a folder."""
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
            dit=dit.eval().requires_grad_(False),
            text=text.eval().requires_grad_(False),
            tokenizer=builtin.read_tokenizer(builtin.read_metadata(text_file)),
            vae=load_vae(vae_file),
            latent_format=latent_format,
        )

    @torch.no_grad()
    def pixels(self, clip: Tensor) -> Tensor:
        """Normalised latents ``c t h w`` -> frames ``4t-3 3 8h 8w`` in [0, 1]."""
        raw = self.latent_format.process_out(clip[None])
        video = self.vae.decode(raw.contiguous(memory_format=torch.channels_last_3d))
        return (video[0].transpose(0, 1) / 2 + 0.5).clamp(0, 1)


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
) -> Tensor:
    """Run a plan for b captions at once: normalised latents ``b c t h w``.

    `start` holds the raw first latents, ``b c 1 h w``, where the plan has a start anchor. Section i's noise comes
    from (seed, i). Text guidance leads away from the empty caption. `told` has b captions for each prompt of the
    plan's own sections, by that prompt.
    """
    timeline = {} if start is None else {0: model.latent_format.process_in(start)}
    b, channels = len(captions), model.dit.spec.in_channels
    said = {None: captions, **(told or {})}
    encoded = {name: model.text(torch.tensor(list(map(model.tokenizer, words)))) for name, words in said.items()}
    unsaid = model.text(torch.tensor([model.tokenizer("")] * b))

    def sample(section: Section, history: list[ContextGroup], index: int) -> Tensor:
        num_lat_frames, text, seen = section.num_lat_frames, encoded[section.prompt], sees(history)
        noise = section_noise(seed, index, (b, channels, num_lat_frames, grid, grid))
        sigmas = flow_sigmas(steps, BASE.num_tokens(num_lat_frames, grid, grid))
        seconds = {TEXT: (unsaid, history), HISTORY: (unsaid, blank(history))}  # what the second pass has

        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            led_from, scale = guidance.at(float(sigma), seen)
            passes = [(text, history)] if led_from is None else [(text, history), seconds[led_from]]
            context, pooled = (torch.cat(parts) for parts in zip(*(words for words, _ in passes), strict=True))
            groups = [_stacked(parts) for parts in zip(*(groups for _, groups in passes), strict=True)]
            x = x.repeat(len(passes), 1, 1, 1, 1)
            levels = sigma.expand(len(x)) * 1000
            first, *others = model.dit(x, levels, context, pooled, positions=section.positions, history=groups).split(b)
            return first if not others else others[0] + scale * (first - others[0])

        return euler(velocity, noise, sigmas)

    return run_plan(plan, timeline, sample, like=torch.empty(b, channels, 1, grid, grid))


def _stacked(groups: Sequence[ContextGroup]) -> ContextGroup:
    """The same group of several passes, in one batch."""
    return replace(groups[0], latents=torch.cat([group.latents for group in groups]))
