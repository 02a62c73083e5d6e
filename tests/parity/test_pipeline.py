"""Our section loop against diffusers' pipeline: the same noise, prompt and noise levels give the same latents.

Where diffusers deviates from the reference, the test follows the reference:
- it counts sections by ceiling division of the frames by 4w - 3, so it is asked for 33 frames a section here;
- it samples the posterior of the image latents, so they are given;
- it solves with Euler where the reference has UniPC (whose order is checked by itself);
- it needs an end image where it takes end latents, so both are given.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoFramepackPipeline
from torch import Tensor

from framepack.pipeline import run_plan
from framepack.planning.plan import Section
from framepack.planning.video import make_plan
from framepack.sampling.sigmas import flow_sigmas
from framepack.sampling.solvers import euler
from framepack.schedule.grammar import parse
from tests.parity.reference import Case, models

STEPS, SECTIONS, GRID = 4, 4, (6, 10)
SCHEDULES = {"inverted": "f1k1_x_g9_f1k1f2k2f16k4_td", "forward": "f1k1_x_f16k4f2k2f1k1_g9"}
TYPES = {"inverted": "inverted_anti_drifting", "forward": "vanilla"}


class Pipeline(HunyuanVideoFramepackPipeline):
    """diffusers' pipeline with given noise, image latents and image embedding."""

    def given(self, noises: list[Tensor], latents: dict[str, Tensor], embedding: Tensor) -> Pipeline:
        self.noises, self.images, self.embedding = iter(noises), iter(latents.values()), embedding
        self.set_progress_bar_config(disable=True)
        return self

    def prepare_latents(self, *_, **__) -> Tensor:
        return next(self.noises)

    def prepare_image_latents(self, *_, **__) -> Tensor:
        return next(self.images)

    def encode_image(self, *_, **__) -> Tensor:
        return self.embedding


def case(cfg: bool) -> Case:
    return Case(
        seed=5,
        heads=2,
        axes=(4, 6, 6),
        double=1,
        single=2,
        refiner=1,
        guidance=True,
        image=True,
        batch=1,
        height=GRID[0],
        width=GRID[1],
        words=(6,),
        forward=cfg,
    )


def inputs(with_end: bool) -> dict:
    torch.manual_seed(11)
    names = ["start", "end"] if with_end else ["start"]
    return {
        "noises": [torch.randn(1, 16, 9, *GRID) for _ in range(SECTIONS)],
        "latents": {name: torch.randn(1, 16, 1, *GRID) for name in names},
        "embedding": torch.randn(1, 5, 20),
        "text": {sign: torch.randn(1, 6, 24) for sign in ("positive", "negative")},
        "pooled": {sign: torch.randn(1, 12) for sign in ("positive", "negative")},
    }


def theirs(transformer, order: str, given: dict, cfg: float) -> Tensor:
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    parts = dict.fromkeys(
        ["text_encoder", "tokenizer", "vae", "text_encoder_2", "tokenizer_2", "image_encoder", "feature_extractor"]
    )
    pipeline = Pipeline(transformer=transformer, scheduler=scheduler, **parts)
    pipeline.vae = SimpleNamespace(dtype=torch.float32)  # nothing is decoded
    pipeline.given(given["noises"], given["latents"], given["embedding"])
    height, width = (8 * n for n in GRID)
    mask = torch.ones(1, 6)
    sections = pipeline(
        image=torch.zeros(1, 3, height, width),
        last_image=torch.zeros(1, 3, height, width) if "end" in given["latents"] else None,
        height=height,
        width=width,
        num_frames=33 * SECTIONS,
        num_inference_steps=STEPS,
        true_cfg_scale=cfg,
        guidance_scale=10.0,
        prompt_embeds=given["text"]["positive"],
        pooled_prompt_embeds=given["pooled"]["positive"],
        prompt_attention_mask=mask,
        negative_prompt_embeds=given["text"]["negative"],
        negative_pooled_prompt_embeds=given["pooled"]["negative"],
        negative_prompt_attention_mask=mask,
        output_type="latent",
        sampling_type=TYPES[order],
        return_dict=False,
    )[0]
    return sections[-1]


def ours(dit, order: str, given: dict, cfg: float) -> Tensor:
    plan = make_plan(parse(SCHEDULES[order]), num_lat_frames=1 + 9 * SECTIONS, end="end" in given["latents"])
    guidance = torch.tensor([10_000.0])

    def sample(section: Section, history: list, index: int) -> Tensor:
        sigmas = flow_sigmas(STEPS, section.num_lat_frames * GRID[0] * GRID[1] // 4)

        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            def once(sign: str) -> Tensor:
                where = {"positions": section.positions, "history": history, "image": given["embedding"]}
                text, pooled = given["text"][sign], given["pooled"][sign]
                return dit(x, sigma.expand(1) * 1000, text, pooled, guidance, **where)

            if cfg == 1:
                return once("positive")
            negative = once("negative")
            return negative + cfg * (once("positive") - negative)

        return euler(velocity, given["noises"][index], sigmas)

    anchors = {0: given["latents"]["start"]} | {k: v for k, v in given["latents"].items() if k == "end"}
    return run_plan(plan, anchors, sample, like=given["latents"]["start"])


@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize(("order", "with_end"), [("inverted", False), ("inverted", True), ("forward", False)])
@torch.no_grad()
def test_section_latents_are_equal(order: str, with_end: bool, cfg: float):
    transformer, dit = models(case(order == "forward"))
    given = inputs(with_end)
    expected, got = theirs(transformer, order, given, cfg), ours(dit, order, given, cfg)
    assert got.shape == expected.shape == (1, 16, 1 + 9 * SECTIONS, *GRID)
    for frame in range(got.shape[2]):
        difference = (got[:, :, frame] - expected[:, :, frame]).norm() / expected[:, :, frame].norm()
        assert difference < 1e-3, f"latent frame {frame}: {difference:.2e}"


def test_the_end_frame_matters():
    _, dit = models(case(False))
    with torch.no_grad():
        with_end, without = (ours(dit, "inverted", inputs(end), 1.0) for end in (True, False))
    assert (with_end[:, :, -9:] - without[:, :, -9:]).norm() > 1e-3
