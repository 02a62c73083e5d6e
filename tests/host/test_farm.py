"""FramePack Farm in the real host: a job file on a farm of this machine's, with progress, takes and a cancel."""

from __future__ import annotations

import asyncio
import subprocess
from copy import deepcopy
from typing import Any

import psutil
import pytest

from tests.host.conftest import Graph, newest_latents, node_of
from tests.host.test_main_job import post
from tests.host.test_progress import watched
from tools.client import QueueError, Workflow, edited, run
from tools.host import Host, comfyui_folder, interpreter

NEAR = 2e-3  # of latents with a standard deviation near 1: the host's products are not the engine's to the bit
NAMES = ("model", "plan", "positive", "negative", "seed", "steps", "cfg", "guidance", "start_latent", "cfg_above")
HERE = {"address": "", "workers": 1, "processes": 1, "device": "cpu", "dtype": "fp32", "threads": 1}


def has_ray() -> bool:
    """Is Ray in the host's Python?"""
    return subprocess.run([interpreter(comfyui_folder()), "-c", "import ray"], capture_output=True).returncode == 0


def farmed(short: Workflow, name: str, seconds: float, steps: int = 2, **how: Any) -> tuple[Graph, str]:
    """The shipped workflow up to latents, its sampler's inputs in a job file that a farm samples; the farm's node."""
    changes = {("EndpointPlanner", "seconds"): seconds, ("SectionSampler", "steps"): steps}
    skipped = {"SaveVideo", "CreateVideo", "FramePackVAEDecode"}
    held = {n: deepcopy(node) for n, node in edited(short, changes).items() if node["class_type"] not in skipped}
    graph, number = Graph(held), node_of(held, "SectionSampler")
    given = held[number]["inputs"]
    inputs = {n: given[n] for n in (*NAMES, "history_guidance") if n in given}
    job = graph.add("FramePackSaveJob", filename_prefix=f"jobs/{name}", **inputs)
    made = graph.add("FramePackFarm", path=job, shared_folder="", model=given["model"], **{**HERE, **how})
    graph.add("SaveLatent", samples=[number, 0], filename_prefix=f"{name}_alone")
    graph.add("SaveLatent", samples=made, filename_prefix=f"{name}_farmed")
    return graph, made[0]


def without_sampler(graph: Graph, name: str) -> Graph:
    """The same workflow, which samples on the farm alone."""
    left = {n: node for n, node in graph.workflow.items() if node["class_type"] != "SectionSampler"}
    return Graph({n: node for n, node in left.items() if node["inputs"].get("filename_prefix") != f"{name}_alone"})


@pytest.mark.slow
def test_a_farm_gives_the_latents_of_the_host_and_its_progress_and_takes(alive: Host, short: Workflow):
    if not has_ray():
        pytest.skip("Ray is not in this host's Python")
    graph, farm = farmed(short, "same", seconds=2.4)
    pictures: list[bytes] = []
    events, lines = asyncio.run(watched(alive.url, graph.workflow, pictures))
    assert events[-1]["type"] == "execution_success", events[-1]
    one, two = newest_latents(alive, "same_alone"), newest_latents(alive, "same_farmed")
    assert (one - two).abs().max() < NEAR
    told = [e["data"]["output"] for e in events if e["type"] == "executed" and e["data"]["node"] == farm]
    takes = told[0]["framepack_sections"]
    assert [(take["index"], take["how"], take["sections"]) for take in takes] == [(0, "sampled", 2), (1, "sampled", 2)]
    assert all(len(take["take"]) == 16 and take["picture"]["filename"] for take in takes)
    assert told[0]["images"]
    assert told[0]["framepack_reuse"] == ["0 of 2 sections reused, 2 sampled"]
    assert any(text.startswith("1 of 2 sections") for node, text in lines if node == farm)


@pytest.mark.slow
def test_a_cancelled_farm_ends_its_driver_and_goes_on_where_it_was(alive: Host, short: Workflow):
    if not has_ray():
        pytest.skip("Ray is not in this host's Python")
    whole, farm = farmed(short, "cancelled", seconds=3.6, steps=16)
    graph, cancelled = without_sampler(whole, "cancelled"), list[int]()

    def cancel_in_second(progress: Any) -> None:
        if progress.node == farm and progress.value > 400 and not cancelled:  # of 1000, for three sections
            cancelled.append(progress.value)
            asyncio.get_running_loop().run_in_executor(None, post, alive, "/interrupt")

    with pytest.raises(QueueError, match="cancelled"):
        run(alive.url, graph.workflow, cancel_in_second)
    commands = [" ".join(child.cmdline()) for child in psutil.Process(alive.process.pid).children(recursive=True)]
    assert not [command for command in commands if "farm" in command or "ray" in command]
    events, _ = asyncio.run(watched(alive.url, graph.workflow))
    told = [e["data"]["output"] for e in events if e["type"] == "executed" and e["data"]["node"] == farm]
    assert [take["how"] for take in told[0]["framepack_sections"]] == ["stored", "sampled", "sampled"]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"address": "nonsense"}, "HOST:PORT.*'nonsense'"),
        ({"shared_folder": "/no/such/folder"}, "/no/such/folder does not exist"),
        ({"workers": 0}, "workers"),
    ],
)
def test_wrong_inputs_of_a_farm_are_rejected_before_the_run(alive: Host, graph: Graph, wrong: dict, named: str):
    made = graph.add("FramePackFarm", path="job.safetensors", **{"shared_folder": "", **HERE, **wrong})
    graph.add("SaveLatent", samples=made, filename_prefix="none")
    with pytest.raises(QueueError, match=named if has_ray() else "pip install"):
        graph.queue(alive)


@pytest.mark.slow
def test_a_farm_that_cannot_work_here_says_so_at_once(alive: Host, short: Workflow):
    if not has_ray():
        pytest.skip("Ray is not in this host's Python")
    graph, _ = farmed(short, "none", seconds=1.2, device="cuda")
    with pytest.raises(QueueError, match=r"this machine has 0\. Choose the device cpu"):
        without_sampler(graph, "none").queue(alive)
    graph, _ = farmed(short, "none", seconds=1.2, address="127.0.0.1:1")
    with pytest.raises(QueueError, match="No Ray cluster answers at 127.0.0.1:1"):
        without_sampler(graph, "none").queue(alive)
