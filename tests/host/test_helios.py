"""Helios in the real host: its latents equal the engine's, which equal the release's (tests/parity)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from framepack import pipeline
from framepack.job_file import JobFile
from framepack.models.helios import BACKBONE, HeliosDiT, HeliosSpec
from framepack.sampling.denoiser import DitDenoiser
from framepack.sampling.staged import solver_named
from framepack.units import Kernel
from tests.host.conftest import Graph, files_of, newest_latents
from tools.client import QueueError
from tools.host import Host

SCHEDULE = "f1k1_x_f16k4f2k2f1k1_g9"
SIZE = {"width": 64, "height": 64}
NAMES = {variant: f"Helios-{variant.capitalize()}_tiny.safetensors" for variant in ("base", "mid", "distilled")}
CFG = {"base": 5.0, "mid": 5.0, "distilled": 1.0}


@pytest.fixture(scope="module", autouse=True)
def models(host: Host) -> Iterator[None]:
    """A small random Helios under a name for each released one, as wide for text as the built-in encoder."""
    folder = host.base / "models" / "diffusion_models"
    folder.mkdir(parents=True, exist_ok=True)
    spec = HeliosSpec(
        heads=1, ffn_dim=64, blocks=2, text_dim=128, key_scales=1, kernels=tuple(map(Kernel.short, (1, 2, 4)))
    )
    torch.manual_seed(0)
    weights = {key: 0.05 * torch.randn_like(value) for key, value in HeliosDiT(spec).state_dict().items()}
    for name in NAMES.values():
        save_file(weights, folder / name)
    yield
    for name in NAMES.values():
        (folder / name).unlink()


class Helios:
    """A graph that samples a video; `task` is what it begins with."""

    def __init__(self, variant: str, task: str = "text", seconds: float = 2.75, **changes: Any):
        self.graph = g = Graph()
        self.model = g.add("FramePackLoadModel", model_name=NAMES[variant])
        clip = g.add("LoadFramePackTextEncoder", text_encoder_name="framepack_shapes_text.safetensors")
        self.vae = g.add("VAELoader", vae_name="framepack_shapes_vae.safetensors")
        self.prompts = [g.add("CLIPTextEncode", clip=clip, text=text) for text in ("a red star moves up", "blurred")]
        schedule = g.add("PackHistory", schedule=changes.pop("schedule", SCHEDULE), **SIZE)
        given, planned = self.outside(task, changes.pop("shortened", 0))
        plan = {"schedule": schedule, "seconds": seconds, "fps": 24.0, "start_image": task == "image"} | SIZE | planned
        self.plan = g.add("EndpointPlanner", model=self.model, **(plan | changes.pop("plan", {})))
        self.inputs = {
            "model": self.model,
            "plan": self.plan,
            "positive": self.prompts[0],
            "negative": self.prompts[1],
            "seed": 7,
            "steps": 4,
            "cfg": CFG[variant],
            "guidance": 1.0,
            "sampler": changes.pop("sampler", None) or self.sampler(variant),
        } | given
        self.sampled = g.add("SectionSampler", noise="in turn", **(self.inputs | changes))

    def sampler(self, variant: str) -> list[Any]:
        if variant == "base":
            return self.graph.add("FramePackSolver", solver="helios")
        steps = "2, 2, 2" if variant == "distilled" else "3, 2, 2"
        given = {"variant": variant, "steps": steps, "double_first": True, "num_lat_frames": 9}
        return self.graph.add("FramePackPyramid", **given, **SIZE)

    def outside(self, task: str, shortened: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """What SectionSampler and EndpointPlanner get of an image or a video."""
        g = self.graph
        if task == "text":
            return {}, {}
        image = g.add("LoadImage", image="framepack_red_star.png")
        if task == "video":
            loaded = g.add("LoadVideo", file="framepack_red_star.mp4")  # 37 frames
            image = g.add("GetVideoComponents", video=loaded)
        if shortened:
            image = g.add("ImageFromBatch", image=image, batch_index=0, length=shortened)
        fitted = g.add("ImageScale", image=image, upscale_method="area", crop="center", **SIZE)
        if task == "image":
            start = g.add("VAEEncode", pixels=fitted, vae=self.vae)
            return {"start_latent": start, "still_latent": g.add("FramePackStill", image=fitted, vae=self.vae)}, {}
        encoded = g.add("FramePackVideoEncode", images=fitted, vae=self.vae, extend="forwards", model=self.model)
        return {"video_latent": encoded}, {"video_latent": encoded}

    def latents(self, host: Host, prefix: str) -> Tensor:
        self.graph.add("SaveLatent", samples=self.sampled, filename_prefix=prefix)
        self.graph.queue(host)
        return newest_latents(host, prefix)


def engine(host: Host, name: str, in_turn: bool) -> Tensor:
    """Raw latents of a job file, without the host."""
    job = JobFile.load(files_of(host, f"jobs/{name}", ".safetensors")[0])
    weights = load_file(job.model)
    dit = HeliosDiT(HeliosSpec.from_shapes({key: tuple(value.shape) for key, value in weights.items()})).eval()
    dit.load_state_dict(weights)
    denoiser = DitDenoiser(dit=dit.requires_grad_(False), prompts=job.prompts, negative=job.negative)
    sampler = pipeline.SolverSampler(denoiser=denoiser, solver=solver_named(job.solver), guidance=job.guidance)
    settings = pipeline.Settings(seed=job.seed, steps=job.steps, outside_noise=BACKBONE.outside_noise)
    return job.raw(pipeline.generate(job.plan, job.anchors(), sampler, settings, like=job.like, in_turn=in_turn))


@pytest.mark.parametrize("task", ["text", "image", "video"])
@pytest.mark.parametrize("variant", NAMES)
def test_latents_equal_the_engines(host: Host, variant: str, task: str):
    made, name = Helios(variant, task), f"helios_{variant}_{task}"
    given = {key: value for key, value in made.inputs.items() if key not in ("noise", "keep")}
    made.graph.add("FramePackSaveJob", filename_prefix=f"jobs/{name}", **given)
    hosted, alone = made.latents(host, name), engine(host, name, in_turn=True)
    assert hosted.shape == alone.shape
    assert hosted.shape[2] == 18 + 9 * (task == "video")
    assert float((hosted - alone).norm() / alone.norm()) < 1e-3
    assert float(hosted.std()) > 0.1


def log_of(host: Host, made: Helios, name: str) -> str:
    """What the host logs while it samples."""
    before = len(host.log_text())
    assert torch.isfinite(made.latents(host, name)).all()
    return host.log_text()[before:]


BAD = {
    "a pyramid for Base": (
        lambda: Helios("base", sampler=None, seed=31),
        "for Helios Mid and Distilled; got Helios-Base_tiny.*FramePack Solver helios",
    ),
    "a size that stages cannot halve": (
        lambda: Helios("distilled", plan={"width": 80}),
        "multiples of 64; got 80x64. Try 64x64",
    ),
    "a start image without its still": (
        lambda: Helios("distilled", "image", still_latent=None),
        "still_latent is not connected.*FramePackStill",
    ),
    "a video of less than a clip": (
        lambda: Helios("distilled", "video", shortened=20),
        "33 frames or more for this model, one clip; got 20",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_with_its_remedy(alive: Host, case: str):
    make, words = BAD[case]
    made = make()
    inputs = made.graph.workflow[made.sampled[0]]["inputs"]
    if case == "a pyramid for Base":
        inputs["sampler"] = made.sampler("distilled")
    for name in [name for name, value in inputs.items() if value is None]:
        del inputs[name]
    with pytest.raises(QueueError, match=words):
        made.latents(alive, "bad")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schedule": "f1k1_x_f16k4f2k2f1k1_g5"}, "trained on sections of 9 latent frames; got 5"),
        ({"schedule": "tc_f64k8f16k4f4k2f1k1_g9"}, "trained on the schedule f1k1_x_f16k4f2k2f1k1_g9 alone"),
        ({"sampler": "base"}, "released with the solver pyramid distilled; got helios"),
    ],
    ids=["section length", "schedule", "solver"],
)
def test_what_the_weights_do_not_know_runs_with_a_warning(alive: Host, changes: dict, words: str):
    changes = dict(changes)
    solver = changes.pop("sampler", None)
    made = Helios("distilled", seed=41 + len(words), seconds=1.4, **changes)
    if solver:
        made.graph.workflow[made.sampled[0]]["inputs"]["sampler"] = made.sampler(solver)
    assert words in log_of(alive, made, f"unknown_{len(words)}")
