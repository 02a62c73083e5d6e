"""Small random FramePack models in diffusers and in ours, with the same weights."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from diffusers import HunyuanVideoFramepackTransformer3DModel
from torch import Tensor, nn

from framepack.models.hunyuan import HunyuanDiT, HunyuanSpec
from framepack.packing.history import ContextGroup
from framepack.units import Kernel


class NoImage(nn.Module):
    """Stands in for the image projection, without which diffusers' forward cannot run: it gives no tokens."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, image: Tensor) -> Tensor:
        return image.new_zeros(image.shape[0], 0, self.width)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One random configuration."""

    seed: int
    heads: int
    axes: tuple[int, int, int]
    double: int
    single: int
    refiner: int
    guidance: bool
    image: bool
    batch: int
    height: int
    width: int
    words: tuple[int, ...]
    forward: bool  # F1's positions, else inverted ones
    text_dim: int = 24
    pooled_dim: int = 12
    std: float = 0.2

    @classmethod
    def draw(cls, seed: int) -> Case:
        rng = random.Random(seed)
        batch = 1 + seed % 2
        return cls(
            seed=seed,
            heads=rng.choice([1, 2, 3]),
            axes=rng.choice([(4, 6, 6), (8, 12, 12), (2, 4, 6)]),
            double=rng.choice([1, 2]),
            single=rng.choice([1, 3]),
            refiner=rng.choice([1, 2]),
            guidance=rng.random() < 0.7,
            image=seed % 3 != 0,
            batch=batch,
            height=2 * rng.randint(1, 7),  # most of these need padding at k2 or k4
            width=2 * rng.randint(1, 7),
            words=tuple(rng.randint(1, 9) for _ in range(batch)),
            forward=rng.random() < 0.5,
        )


def models(case: Case) -> tuple[HunyuanVideoFramepackTransformer3DModel, HunyuanDiT]:
    """diffusers' model and ours, ours read off the other's state dict."""
    torch.manual_seed(case.seed)
    head_dim = sum(case.axes)
    theirs = HunyuanVideoFramepackTransformer3DModel(
        num_attention_heads=case.heads,
        attention_head_dim=head_dim,
        num_layers=case.double,
        num_single_layers=case.single,
        num_refiner_layers=case.refiner,
        guidance_embeds=case.guidance,
        text_embed_dim=case.text_dim,
        pooled_projection_dim=case.pooled_dim,
        rope_axes_dim=case.axes,
        has_image_proj=case.image,
        image_proj_dim=20,
        has_clean_x_embedder=True,
    ).eval()
    for parameter in theirs.parameters():  # no layer starts at zero, so that every one of them counts
        nn.init.normal_(parameter, std=case.std)
    weights = theirs.state_dict()
    if not case.image:
        theirs.image_projection = NoImage(case.heads * head_dim)
    read = HunyuanSpec.from_shapes({k: tuple(v.shape) for k, v in weights.items()})
    spec = HunyuanSpec(**{f: getattr(read, f) for f in read.__slots__} | {"rope_axes": case.axes})
    ours = HunyuanDiT(spec, exact=True).eval()
    ours.load_state_dict(weights)
    return theirs.requires_grad_(False), ours.requires_grad_(False)


def positions(case: Case, padding: int = 1) -> dict[str, list[int]]:
    """Latent frame indices of the released models: inverted with so many sections skipped, or F1's."""
    if case.forward:
        return {"x": [*range(20, 29)], "1": [0, 19], "2": [17, 18], "4": [*range(1, 17)]}
    at = 9 * padding + 1
    return {"x": [*range(at, at + 9)], "1": [0, at + 9], "2": [at + 10, at + 11], "4": [*range(at + 12, at + 28)]}


def groups(latents: dict[str, Tensor], where: dict[str, list[int]]) -> list[ContextGroup]:
    """Our history from latents ``b c n h w`` by kernel."""
    return [
        ContextGroup(kernel=Kernel.short(int(k)), latents=latents[k], positions=tuple(where[k]))
        for k in ("1", "2", "4")
    ]
