"""A VAE on SectionSampler: what is finished is decoded while other sections are still to come, each latent once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.host.conftest import Graph, node_of, pictures_of
from tests.host.test_progress import watched
from tools.client import QueueError, Workflow, edited
from tools.host import Host

FORWARD = "td_f16k4f2k2f1k1_g9"


def with_vae(workflow: Workflow, schedule: str, seconds: float, seed: int, kind: str | None = None) -> Graph:
    """The shipped workflow with a VAE on its sampler, whose images are saved beside those of the decode node.

    `kind` is a node that changes the VAE or stands for it.
    """
    values = {
        ("PackHistory", "schedule"): schedule,
        ("EndpointPlanner", "seconds"): seconds,
        ("SectionSampler", "steps"): 2,
        ("SectionSampler", "seed"): seed,
    }
    graph = Graph(edited(workflow, values))
    sampler = node_of(graph.workflow, "SectionSampler")
    vae = [node_of(graph.workflow, "VAELoader"), 0]
    if kind:
        vae = graph.add(kind, **({"vae": vae} if kind == "StandInNewerVAE" else {}))
    graph.workflow[sampler]["inputs"]["vae"] = vae
    whole = graph.add("FramePackVAEDecode", samples=[sampler, 0], vae=vae)
    for name, images in (("piecewise", [sampler, 1]), ("at_once", whole)):
        graph.add("SaveImage", images=images, filename_prefix=f"{name}_{seed}_{seconds:g}")
    return graph


def compare(host: Host, seed: int, seconds: float, num: int) -> None:
    made = f"{seed}_{seconds:g}"
    streamed, whole = (pictures_of(host, f"{name}_{made}") for name in ("piecewise", "at_once"))
    assert len(streamed) == num
    assert np.array_equal(streamed, whole)


def sections_and_frames(events: list[dict[str, Any]]) -> list[str]:
    """The children of the sampler that ran, in order."""
    nodes = [e["data"]["node"] for e in events if e["type"] == "executing" and e["data"]["node"]]
    return [node.rpartition(".")[2] for node in nodes if ".section_" in node or ".frames_" in node]


def test_in_a_forward_order_each_section_is_decoded_before_the_next_is_made(alive: Host, shipped: Workflow):
    graph = with_vae(shipped, FORWARD, 3.6, 71)
    events, _ = asyncio.run(watched(alive.url, graph.workflow))
    assert sections_and_frames(events) == [*("section_0", "frames_0", "section_1", "frames_1", "section_2", "frames_2")]
    compare(alive, 71, 3.6, 109)


def test_in_an_inverted_order_the_end_of_the_run_decodes(alive: Host, shipped: Workflow):
    graph = with_vae(shipped, "f1k1_x_g9_f1k1f2k2f16k4_td", 2.4, 72)
    events, _ = asyncio.run(watched(alive.url, graph.workflow))
    assert sections_and_frames(events) == ["section_0", "section_1", "frames_1"]
    compare(alive, 72, 2.4, 73)


def test_a_longer_plan_keeps_sections_and_gives_the_frames_of_the_whole(alive: Host, shipped: Workflow):
    """What was decoded has gone on past the border that the longer plan goes on from, so it begins anew."""
    with_vae(shipped, FORWARD, 2.4, 73).queue(alive)
    events, _ = asyncio.run(watched(alive.url, with_vae(shipped, FORWARD, 3.6, 73).workflow))
    assert sections_and_frames(events)[-2:] == ["section_2", "frames_2"]
    assert "section_0" not in sections_and_frames(events)
    compare(alive, 73, 2.4, 73)
    compare(alive, 73, 3.6, 109)


@pytest.mark.parametrize("kind", ["StandInNewerVAE", "StandInVAE"])
def test_a_stream_that_holds_latents_back_goes_on_over_the_border_of_sections(
    alive: Host, shipped: Workflow, kind: str
):
    """Newer hosts decode Wan's latents in pairs, HunyuanVideo's go in tiles."""
    seed, grid = 75 + len(kind), ("FramePackVAEDecode", "grid")
    graph = with_vae(shipped, FORWARD, 3.6, seed, kind)
    Graph(edited(graph.workflow, {grid: "9 every 7"})).queue(alive)  # the grid of a stream that has memory enough
    compare(alive, seed, 3.6, 109)


@pytest.mark.parametrize("seconds", [2.4, 3.6], ids=["first", "longer"])
def test_sections_that_are_clips_decode_on_their_own(alive: Host, shipped: Workflow, seconds: float):
    graph = with_vae(shipped, FORWARD, seconds, 78)
    planner, sampler = (node_of(graph.workflow, kind) for kind in ("EndpointPlanner", "SectionSampler"))
    plan = graph.workflow[sampler]["inputs"]["plan"]
    assert plan[0] == planner
    graph.workflow[sampler]["inputs"]["plan"] = graph.add("StandInClips", plan=plan)
    last = graph.add("LatentCut", samples=[sampler, 0], dim="t", index=-9, amount=9)
    stock = graph.add("VAEDecode", samples=last, vae=graph.workflow[sampler]["inputs"]["vae"])
    graph.add("SaveImage", images=stock, filename_prefix=f"stock_{seconds:g}")
    graph.queue(alive)
    num = 1 + 33 * round(seconds / 1.2)  # the start image, then sections of 9 latent frames
    compare(alive, 78, seconds, num)
    made, alone = pictures_of(alive, f"at_once_78_{seconds:g}"), pictures_of(alive, f"stock_{seconds:g}")
    assert np.abs(made[-33:].astype(int) - alone).max() <= 1


def test_in_a_long_plan_a_node_decodes_what_several_sections_made(alive: Host, shipped: Workflow):
    graph = with_vae(shipped, "td_f16k4f2k2f1k1_g1", 9.3, 77)
    graph.workflow[node_of(graph.workflow, "SectionSampler")]["inputs"]["steps"] = 1
    events, _ = asyncio.run(watched(alive.url, graph.workflow))
    ran = sections_and_frames(events)
    assert sum(name.startswith("section") for name in ran) == 70
    assert [name for name in ran if name.startswith("frames")] == [f"frames_{i}" for i in range(1, 70, 2)]
    assert ran.index("frames_1") < ran.index("section_3")
    compare(alive, 77, 9.3, 281)


@pytest.mark.parametrize("sampled", [False, True], ids=["first run", "only the VAE changed"])
def test_a_wrong_vae_is_named_before_a_section_is_sampled(alive: Host, shipped: Workflow, sampled: bool):
    graph = with_vae(shipped, FORWARD, 2.4, 76 + sampled)
    if sampled:
        graph.queue(alive)
    inputs = graph.workflow[node_of(graph.workflow, "SectionSampler")]["inputs"]
    inputs["vae"], inputs["seed"] = graph.add("StandInVAE", channels=4), 176 + sampled
    events, _ = asyncio.run(watched(alive.url, graph.workflow))
    fault = events[-1]["data"]
    assert fault["exception_type"].endswith("WrongVAEError")
    assert "wrong VAE" in fault["exception_message"]
    assert sections_and_frames(events) == []


def test_the_node_shows_decoded_frames(alive: Host, shipped: Workflow):
    graph = with_vae(shipped, FORWARD, 2.4, 74)
    sampler = node_of(graph.workflow, "SectionSampler")
    graph.workflow[sampler]["inputs"]["steps"] = 40  # a run long enough for drawing
    events, _ = asyncio.run(watched(alive.url, graph.workflow))
    shown = [
        e["data"]
        for e in events
        if e["type"] == "executed" and ".frames_" in e["data"]["node"] and e["data"]["output"].get("animated")
    ]
    assert shown
    assert {data["display_node"] for data in shown} == {sampler}
    (item,) = shown[-1]["output"]["images"]
    with Image.open(Path(alive.base) / "temp" / item["filename"]) as animation:
        assert animation.size == (128, 128)
        first = np.asarray(animation.convert("RGB").resize((64, 64))).astype(int)
    decoded = pictures_of(alive, "at_once_74_2.4")[0].astype(int)
    assert np.abs(first - decoded).mean() < 8  # the start frame itself, but for what WebP loses


def test_images_without_a_vae_are_refused_in_words(alive: Host, short: Workflow):
    graph = Graph(short)
    graph.add("SaveImage", images=[node_of(short, "SectionSampler"), 1], filename_prefix="none")
    with pytest.raises(QueueError, match="images only with a VAE"):
        graph.queue(alive)
