"""Our engine with Helios against diffusers' pipelines: the same weights and generator give the same latents."""

from __future__ import annotations

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

from framepack.models.helios import BACKBONE, HeliosDiT, HeliosSpec
from framepack.pipeline import Settings, SolverSampler, generate
from framepack.planning.request import FIRST, START, STILL, Extension, PlanRequest
from framepack.planning.video import plan_video
from framepack.sampling.denoiser import DitDenoiser
from framepack.sampling.guidance import Guidance
from framepack.sampling.solvers import helios
from framepack.sampling.staged import Pyramid
from framepack.schedule.grammar import parse
from framepack.units import Kernel

SECTION, SECTIONS = 9, 3
GRID = (8, 16)  # latent height and width
SCHEDULE = "f1k1_x_f16k4f2k2f1k1_g9"
FIRST_STEPS = 2  # times as many in the first section of a distilled model
SHIFT = {"use_dynamic_shifting": True, "time_shift_type": "linear"}


@dataclass
class Models:
    """One small transformer in both implementations, a VAE that makes nothing of interest, and two prompts."""

    theirs: HeliosTransformer3DModel
    ours: HeliosDiT
    spec: HeliosSpec
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
    return Models(theirs, ours.requires_grad_(False), spec, vae)


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


def our_latents(models: Models, kind: str, given: dict[str, Tensor], cfg: float, steps: list[int]) -> Tensor:
    slots, extend = {}, None
    if "video_latents" in given:
        video = given["video_latents"]
        extend = Extension(num_lat_frames=video.shape[2], direction="forwards")
        slots = {FIRST: given["image_latents"], **dict(enumerate(video.split(1, 2)))}
    elif given:
        slots = {START: given["image_latents"], STILL: given["fake_image_latents"]}
    how = {"schedule": parse(SCHEDULE), "geometry": models.spec.geometry}
    plan = plan_video(PlanRequest.lasting(33 * SECTIONS / 24, 24, start=bool(given), extend=extend, **how))
    distilled = kind == "distilled"
    stages = Pyramid(steps=tuple(steps), distilled=distilled, first=FIRST_STEPS if distilled else 1)
    solver = helios if kind == "base" else stages
    positive, negative = ({"context": prompt} for prompt in models.prompts)
    denoiser = DitDenoiser(dit=models.ours, prompts={None: positive}, negative=negative)
    led = Guidance(cfg=cfg, zero_star=kind == "mid")
    sampler = SolverSampler(denoiser=denoiser, solver=solver, guidance=led)
    settings = Settings(seed=3, steps=steps[0], outside_noise=BACKBONE.outside_noise)
    made = generate(plan, slots, sampler, settings, like=torch.empty(1, 16, 1, *GRID), in_turn=True)
    return made[:, :, -SECTION * SECTIONS :]


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
