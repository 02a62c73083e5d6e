"""Guidance in the real host: SectionSampler's latents are those of the loop without a host."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from framepack.planning.video import make_plan
from framepack.sampling.guidance import Guidance
from framepack.schedule.grammar import parse
from framepack.shapes import builtin
from framepack.shapes.encode import load_vae
from framepack.shapes.generate import Builtin, generate
from tests.host.conftest import Graph, newest_latents, node_of
from tools.client import QueueError, Workflow, edited, run
from tools.host import Host

SEED, STEPS = 11, 3


def hosted(host: Host, short: Workflow, led: Guidance) -> torch.Tensor:
    """Raw latents of two sections from the host."""
    numbers = {"cfg": led.cfg, "cfg_above": led.cfg_above, "history_guidance": led.history}
    values = {("SectionSampler", name): value for name, value in numbers.items()}
    values |= {("EndpointPlanner", "seconds"): 2.4, ("SectionSampler", "seed"): SEED}
    graph = Graph(edited(short, values | {("SectionSampler", "steps"): STEPS}))
    graph.add("SaveLatent", samples=[node_of(short, "SectionSampler"), 0], filename_prefix="guided")
    graph.queue(host)
    return newest_latents(host, "guided")


@pytest.fixture(scope="module")
def model() -> Builtin:
    return Builtin.load()


def alone(model: Builtin, prompt: str, led: Guidance) -> torch.Tensor:
    """Raw latents of the same two sections without a host."""
    with Image.open(builtin.ASSETS / "input" / "framepack_red_star.png") as picture:
        pixels = torch.from_numpy(np.asarray(picture.convert("RGB"), dtype=np.float32) / 127.5 - 1)
    with torch.no_grad():
        start = load_vae(builtin.VAE).encode(pixels.movedim(-1, 0)[None, :, None])
    plan = make_plan(parse("f1k1_x_g9_f1k1f2k2f16k4_td"), num_lat_frames=19)
    made = generate(model, plan, [prompt], start=start, steps=STEPS, seed=SEED, guidance=led)
    return model.latent_format.process_out(made)


@pytest.mark.parametrize(
    "led",
    [
        Guidance(),
        Guidance(cfg=3.0),
        Guidance(cfg=3.0, cfg_above=0.9),
        Guidance(cfg=3.0, cfg_above=0.9, history=1.0),
        Guidance(history=1.0),
    ],
    ids=str,
)
def test_the_host_guides_as_the_loop_does(host: Host, short: Workflow, model: Builtin, led: Guidance):
    (prompt,) = {node["inputs"]["text"] for node in short.values() if node["class_type"] == "CLIPTextEncode"} - {""}
    got, expected = hosted(host, short, led), alone(model, prompt, led)
    assert (got - expected).norm() < 1e-2 * expected.norm()
    if led != Guidance():
        assert (got - alone(model, prompt, Guidance())).norm() > 5e-2 * expected.norm()


def test_a_level_that_cannot_be_is_refused(alive: Host, short: Workflow):
    with pytest.raises(QueueError, match="cfg_above"):
        run(alive.url, edited(short, {("SectionSampler", "cfg_above"): 1.5}))
