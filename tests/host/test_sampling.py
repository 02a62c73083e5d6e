"""Noise levels and solver on stock SamplerCustomAdvanced and on SectionSampler."""

from __future__ import annotations

import re

import pytest

from tests.host.conftest import Graph, newest_latents, node_of
from tests.host.test_main_job import frames_of, saved, stock_graph
from tools.client import QueueError, Workflow, edited, run
from tools.host import Host


def custom(solver: str | None, prefix: str, host: Host):
    graph, (model, text, latent) = stock_graph()
    noise = graph.add("RandomNoise", noise_seed=4)
    guider = graph.add("BasicGuider", model=model, conditioning=text)
    sampler = (
        graph.add("FramePackSolver", solver=solver) if solver else graph.add("KSamplerSelect", sampler_name="euler")
    )
    sigmas = graph.add("FramePackSigmas", steps=20, width=64, height=64, num_lat_frames=9)
    samples = graph.add(
        "SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=sigmas, latent_image=latent
    )
    graph.add("SaveLatent", samples=samples, filename_prefix=prefix)
    graph.queue(host)
    return newest_latents(host, prefix)


def test_our_euler_is_the_stock_euler(host: Host):
    ours, stock = custom("euler", "euler_ours", host), custom(None, "euler_stock", host)
    assert (ours - stock).norm() / stock.norm() < 1e-4


def test_unipc_comes_to_about_the_same_video(host: Host):
    unipc, stock = custom("unipc", "unipc", host), custom(None, "euler_stock_2", host)
    assert 1e-4 < (unipc - stock).norm() / stock.norm() < 0.5


@pytest.mark.parametrize("solver", ["unipc", "euler"])
def test_the_section_sampler_takes_both(host: Host, short: Workflow, solver: str):
    graph = Graph(short)
    inputs = graph.workflow[node_of(short, "SectionSampler")]["inputs"]
    inputs["sampler"] = graph.add("FramePackSolver", solver=solver)
    inputs["sigmas"] = graph.add("FramePackSigmas", steps=6, width=64, height=64, num_lat_frames=9)
    steps = []
    done = run(host.url, graph.workflow, lambda p: steps.append(p))
    assert frames_of(saved(host, done)).shape[0] == 37
    assert {p.total for p in steps if "section" in p.node} == {6}


def cached(host: Host, short: Workflow, threshold: float | None):
    """Latents of a video with the step cache, and what the host logged meanwhile."""
    values = {("SectionSampler", "steps"): 12, ("SectionSampler", "seed"): 77, ("EndpointPlanner", "seconds"): 2.4}
    graph = Graph(edited(short, values))
    inputs = graph.workflow[node_of(short, "SectionSampler")]["inputs"]
    if threshold is not None:
        inputs["model"] = graph.add("FramePackStepCache", model=inputs["model"], threshold=threshold)
    graph.add("SaveLatent", samples=[node_of(short, "SectionSampler"), 0], filename_prefix=f"cached_{threshold}")
    before = len(host.log_text())
    graph.queue(host)
    return newest_latents(host, f"cached_{threshold}"), host.log_text()[before:]


def test_the_step_cache_saves_steps_in_each_section_and_at_zero_changes_nothing(host: Host, short: Workflow):
    plain, _ = cached(host, short, None)
    same, said = cached(host, short, 0.0)
    assert "step cache" not in said
    near, said = cached(host, short, 2.0)
    runs = re.findall(r"step cache: (\d+) passes computed, (\d+) skipped", said)
    assert len(runs) == 2  # one for each section
    for computed, skipped in runs:
        assert int(computed) + int(skipped) in (12, 24)  # both passes of a step together, or one after the other
    assert 1e-4 < (near - plain).norm() / plain.norm() < 0.5
    assert (same - plain).norm() / plain.norm() < 1e-4  # bit for bit, but that a busy machine may sum in other threads


def test_context_windows_are_refused_with_sections(alive: Host, short: Workflow):
    (info,) = alive.get("/object_info/ContextWindowsManual").values()
    given = {name: spec[1]["default"] for name, spec in info["input"]["required"].items() if "default" in spec[1]}
    combos = {name: spec[1]["options"][0] for name, spec in info["input"]["required"].items() if "options" in spec[1]}
    values = combos | given | {"context_length": 4, "context_overlap": 2, "dim": 2}
    graph = Graph(short)
    sampler = graph.workflow[node_of(short, "SectionSampler")]["inputs"]
    sampler["model"] = graph.add("ContextWindowsManual", model=sampler["model"], **values)
    with pytest.raises(QueueError) as caught:
        graph.queue(alive)
    assert "Context Windows" in str(caught.value)
    assert "9 latent frames" in str(caught.value)
    assert "ContextWindowsError" in alive.log_text()
