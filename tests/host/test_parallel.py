"""Several processes in the real host: sections shared out by FramePack Parallel."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from copy import deepcopy
from pathlib import Path

import pytest

from tests.host.conftest import Graph, newest_latents, node_of
from tools.client import QueueError, Workflow
from tools.host import Host

NEAR = 1e-4  # of latents with a standard deviation near 1, after a few steps


@pytest.fixture
def latents(short: Workflow) -> Graph:
    """The shipped workflow up to latents."""
    skipped = {"SaveVideo", "CreateVideo", "FramePackVAEDecode"}
    graph = Graph({n: deepcopy(node) for n, node in short.items() if node["class_type"] not in skipped})
    graph.add("SaveLatent", samples=[node_of(short, "SectionSampler"), 0], filename_prefix="alone")
    return graph


def shared(graph: Graph, name: str, **inputs: object) -> Graph:
    """The same workflow, its sections shared out, saved under another name."""
    other = Graph(deepcopy(graph.workflow))
    sampler = other.workflow[node_of(other.workflow, "SectionSampler")]["inputs"]
    given = {"processes": 2, "device": "cpu", "attention": "sdpa", **inputs}
    sampler["model"] = other.add("FramePackParallel", model=sampler["model"], **given)
    other.workflow[node_of(other.workflow, "SaveLatent")]["inputs"]["filename_prefix"] = name
    return other


def test_sections_shared_by_two_processes_are_those_of_the_host(alive: Host, latents: Graph):
    latents.queue(alive)
    shared(latents, "together").queue(alive)
    one, two = newest_latents(alive, "alone"), newest_latents(alive, "together")
    assert one.shape == two.shape
    assert (one - two).abs().max() < NEAR


@pytest.mark.slow
def test_a_process_that_dies_is_an_error_and_the_next_run_starts_anew(alive: Host, latents: Graph):
    run = shared(latents, "survived")
    sampler = run.workflow[node_of(run.workflow, "SectionSampler")]["inputs"]
    sampler |= {"steps": 200, "seed": 5}
    killer = threading.Thread(target=kill_a_rank, args=(alive,))
    killer.start()
    with pytest.raises(QueueError, match=r"Process \d of 2 ended.*queue again"):
        run.queue(alive)
    killer.join()
    sampler["steps"] = 2
    run.queue(alive)


def kill_a_rank(host: Host) -> None:
    """The second process that runs a crew's code, once it is there and samples."""
    for _ in range(600):
        found = subprocess.run(
            ["pgrep", "-f", "framepack.parallel.rank"], capture_output=True, text=True
        ).stdout.split()
        ours = [int(pid) for pid in found if _parent(int(pid)) == host.process.pid]
        if len(ours) == 2:
            time.sleep(3)
            os.kill(ours[1], signal.SIGKILL)
            return
        time.sleep(0.1)


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def test_a_number_of_processes_that_heads_do_not_divide_is_rejected(alive: Host, latents: Graph):
    with pytest.raises(QueueError, match="attention heads; got 5"):
        shared(latents, "none", processes=5).queue(alive)
