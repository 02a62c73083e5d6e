"""A job file from the real host gives, without the host, the latents that the host samples."""

from __future__ import annotations

import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.host.conftest import Graph, files_of, newest_latents, node_of
from tools.client import QueueError, Workflow
from tools.host import REPO, Host

FIELDS = (
    "model",
    "plan",
    "positive",
    "seed",
    "steps",
    "cfg",
    "guidance",
    "start_latent",
    "cfg_above",
    "history_guidance",
)
NEAR = 2e-3  # of latents with a standard deviation near 1: batches and layouts differ


@pytest.fixture
def both(short: Workflow) -> Graph:
    """The shipped workflow with a prompt timeline, up to latents and a job file of the same inputs."""
    skipped = {"SaveVideo", "CreateVideo", "FramePackVAEDecode"}
    graph = Graph({n: deepcopy(node) for n, node in short.items() if node["class_type"] not in skipped})
    planner = graph.workflow[node_of(short, "EndpointPlanner")]["inputs"]
    planner |= {"seconds": 3.6, "prompts": "0-1.8s: a red star moves up\n1.8s: a red star moves down", "blend": 1.0}
    sampler = graph.workflow[node_of(short, "SectionSampler")]["inputs"]
    sampler |= {"clip": [node_of(short, "LoadFramePackTextEncoder"), 0], "steps": 4}
    sampler["sampler"] = graph.add("FramePackSolver", solver="unipc")
    graph.add("SaveLatent", samples=[node_of(short, "SectionSampler"), 0], filename_prefix="hosted")
    given = {
        name: sampler[name] for name in (*FIELDS, "negative", "start_latent", "clip", "sampler") if name in sampler
    }
    graph.add("FramePackSaveJob", filename_prefix="jobs/one", **given)
    return graph


def test_a_job_gives_the_hosts_latents_without_the_host(alive: Host, both: Graph, tmp_path: Path):
    both.queue(alive)
    (job,) = files_of(alive, "jobs/one", ".safetensors")
    out = tmp_path / "out.latent"
    command = [sys.executable, "-m", "framepack", "generate", str(out), "--job", str(job)]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "section 3 of 3" in done.stderr
    hosted = newest_latents(alive, "hosted")
    alone = load_file(out)["latent_tensor"]
    assert alone.shape == hosted.shape
    assert (alone - hosted).abs().max() < NEAR


def test_a_job_of_a_model_with_a_patch_is_rejected(alive: Host, both: Graph):
    given = both.workflow[node_of(both.workflow, "FramePackSaveJob")]["inputs"]
    given["model"] = both.add("ModelSamplingSD3", model=given["model"], shift=3.0)
    del both.workflow[node_of(both.workflow, "SaveLatent")]
    with pytest.raises(QueueError, match="LoRAs and patches are not in it"):
        both.queue(alive)
