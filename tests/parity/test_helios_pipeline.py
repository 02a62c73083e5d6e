"""Our engine with Helios against diffusers' pipelines: the same weights and generator give the same latents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    HeliosDMDScheduler,
    HeliosPipeline,
    HeliosPyramidPipeline,
    HeliosScheduler,
    HeliosTransformer3DModel,
)
from torch import Tensor, nn

from framepack.models.helios import HeliosDiT, HeliosSpec
from framepack.models.helios.inputs import noised, noised_frames
from framepack.packing.history import ContextGroup
from framepack.sampling.guidance import zero_star
from framepack.sampling.pyramid import pyramid
from framepack.sampling.sigmas import helios_sigmas
from framepack.sampling.solvers import helios
from framepack.units import Kernel

SECTION, SECTIONS = 9, 3
GRID = (8, 16)  # latent height and width
SHIFT = {"use_dynamic_shifting": True, "time_shift_type": "linear"}
Draw = Callable[[tuple[int, ...]], Tensor]


@dataclass
class Models:
    """One small transformer in both implementations, a VAE that makes nothing of interest, and two prompts."""

    theirs: HeliosTransformer3DModel
    ours: HeliosDiT
    vae: AutoencoderKLWan
    prompts: tuple[Tensor, Tensor] = field(default_factory=lambda: (torch.randn(1, 5, 24), torch.randn(1, 5, 24)))


@pytest.fixture(scope="module")
def models() -> Models:
    torch.manual_seed(0)
    spec = HeliosSpec(
        heads=2, head_dim=16, ffn_dim=48, blocks=2, text_dim=24, kernels=tuple(map(Kernel.short, (1, 2, 4)))
    )
    theirs = HeliosTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        text_dim=24,
        ffn_dim=48,
        num_layers=2,
        rope_dim=spec.rope.axes,
    ).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.15)
    ours = HeliosDiT(spec).eval()
    ours.load_state_dict(theirs.state_dict())
    vae = AutoencoderKLWan(base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1).eval()
    return Models(theirs, ours.requires_grad_(False), vae)


def their_latents(models: Models, kind: str, given: dict[str, Tensor], cfg: float, steps: list[int]) -> Tensor:
    scheduler = HeliosDMDScheduler(**SHIFT) if kind == "distilled" else HeliosScheduler(stages=len(steps), **SHIFT)
    parts = {"tokenizer": None, "text_encoder": None, "vae": models.vae, "transformer": models.theirs}
    if kind == "base":
        pipeline, how = HeliosPipeline(scheduler=scheduler, **parts), {"num_inference_steps": steps[0]}
    else:
        zero = {"is_cfg_zero_star": kind == "mid", "is_distilled": kind == "distilled"}
        pipeline = HeliosPyramidPipeline(scheduler=scheduler, **parts, **zero)
        how = {"pyramid_num_inference_steps_list": steps, "is_amplify_first_chunk": kind == "distilled"}
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(
        prompt_embeds=models.prompts[0],
        negative_prompt_embeds=models.prompts[1],
        height=8 * GRID[0],
        width=8 * GRID[1],
        num_frames=33 * SECTIONS,
        guidance_scale=cfg,
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
        **how,
        **given,
    )
    return made.frames[:, :, -SECTION * SECTIONS :]


def histories(start: Tensor | None, before: Tensor | None) -> Iterator[tuple[list[ContextGroup], list[Tensor]]]:
    """The context of each section, and the list that takes its latents."""
    past = torch.zeros(1, 16, 19, *GRID)
    if before is not None:
        past = torch.cat([past, before], 2)
    for _ in range(SECTIONS):
        long, mid, short = past[:, :, -19:].split([16, 2, 1], 2)
        first = torch.zeros_like(short) if start is None else start
        places = {4: (long, range(1, 17)), 2: (mid, range(17, 19)), 1: (torch.cat([first, short], 2), (0, 19))}
        made: list[Tensor] = []
        yield (
            [ContextGroup(kernel=Kernel.short(k), latents=x, positions=tuple(p)) for k, (x, p) in places.items()],
            made,
        )
        start = made[0][:, :, :1] if start is None else start
        past = torch.cat([past, made[0]], 2)


def our_latents(models: Models, kind: str, given: dict[str, Tensor], cfg: float, steps: list[int]) -> Tensor:
    generator = torch.Generator().manual_seed(3)

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator)

    start, before = given.get("image_latents"), given.get("fake_image_latents")
    if start is not None:
        start = noised(start, generator)
    if before is not None:
        before = noised(before, generator)
    if "video_latents" in given:
        before = noised_frames(given["video_latents"], generator, SECTION)

    whole = []
    for index, (history, made) in enumerate(histories(start, before)):

        def velocity(x: Tensor, sigma: Tensor, history=history) -> Tensor:
            timestep = 1000 * sigma.to(x).expand(1)
            positions = range(20, 20 + SECTION)
            v = models.ours(x, timestep, models.prompts[0], positions=positions, history=history)
            if cfg == 1:
                return v
            other = models.ours(x, timestep, models.prompts[1], positions=positions, history=history)
            other = other * zero_star(v, other) if kind == "mid" else other
            return other + cfg * (v - other)

        noise = draw((1, 16, SECTION, *GRID))
        if kind == "base":
            sigmas = helios_sigmas(steps[0], SECTION * GRID[0] * GRID[1] // 4)
            made.append(helios(velocity, sigmas[0] * noise, sigmas))
        else:
            counts = [2 * n for n in steps] if kind == "distilled" and index == 0 else steps
            still = 2 if kind == "mid" and cfg != 1 else 0
            made.append(pyramid(velocity, noise, counts, draw, distilled=kind == "distilled", still_steps=still))
        whole += made
    return torch.cat(whole, 2)


def inputs(task: str) -> dict[str, Tensor]:
    """Latents from outside, as the pipelines take them."""
    torch.manual_seed(5)
    image, still, video = torch.randn(1, 16, 1, *GRID), torch.randn(1, 16, 1, *GRID), torch.randn(1, 16, 18, *GRID)
    if task == "image":
        return {"image_latents": image, "fake_image_latents": still}
    if task == "video":
        return {"image_latents": image, "video_latents": video, "add_noise_to_image_latents": False}
    return {}


@pytest.fixture
def _factored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their covariance of block noise is singular but for rounding, which not every processor can factor."""
    factor = torch.linalg.cholesky
    monkeypatch.setattr(torch.linalg, "cholesky", lambda a: factor(a.double() + 1e-7 * torch.eye(len(a))).to(a.dtype))


WAYS = [("base", 5.0, [4]), ("mid", 5.0, [3, 2, 2]), ("distilled", 1.0, [2, 2, 2])]


@pytest.mark.usefixtures("_factored")
@pytest.mark.parametrize("task", ["text", "image", "video"])
@pytest.mark.parametrize(("kind", "cfg", "steps"), WAYS, ids=[way[0] for way in WAYS])
@torch.no_grad()
def test_three_sections_have_the_same_latents(models: Models, kind: str, cfg: float, steps: list[int], task: str):
    given = inputs(task)
    expected = their_latents(models, kind, given, cfg, steps)
    got = our_latents(models, kind, given, cfg, steps)
    assert got.shape == expected.shape == (1, 16, SECTION * SECTIONS, *GRID)
    assert torch.isfinite(expected).all()
    assert float((got - expected).norm() / expected.norm()) < 1e-3
