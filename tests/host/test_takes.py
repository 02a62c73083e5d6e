"""Takes and locks on the graph, with a store: both takes stay, what follows is made again, a locked one never is."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.host.conftest import Graph, newest_latents, node_of
from tests.host.test_progress import watched
from tools.client import QueueError, Workflow, edited
from tools.host import Host, running

FORWARD = "td_f16k4f2k2f1k1_g9"
NUM = 3


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with a section store of its own."""
    with running(tmp_path_factory.mktemp("takes")) as host:
        yield host


@pytest.fixture
def three(shipped: Workflow) -> Workflow:
    changes = {("EndpointPlanner", "seconds"): 3.6, ("SectionSampler", "steps"): 2, ("SectionSampler", "seed"): 5}
    return edited(shipped, changes | {("PackHistory", "schedule"): FORWARD})


def graph_of(workflow: Workflow, **sampler: Any) -> Graph:
    """The workflow up to its latents, which are saved, with more inputs on its sampler."""
    skipped = {"SaveVideo", "CreateVideo", "FramePackVAEDecode"}
    graph = Graph({n: node for n, node in workflow.items() if node["class_type"] not in skipped})
    number = node_of(graph.workflow, "SectionSampler")
    graph.workflow[number] = graph.workflow[number] | {"inputs": graph.workflow[number]["inputs"] | sampler}
    graph.add("SaveLatent", samples=[number, 0], filename_prefix="takes")
    return graph


def ran(host: Host, workflow: Workflow, **sampler: Any) -> tuple[list[Tensor], dict[int, dict[str, Any]], str]:
    """Latents of each section, what the page heard of each, and of the whole."""
    graph = graph_of(workflow, **sampler)
    events, _ = asyncio.run(watched(host.url, graph.workflow))
    told = [e["data"]["output"] or {} for e in events if e["type"] == "executed"]
    made = {one["index"]: one for output in told for one in output.get("framepack_sections", [])}
    said = [line for output in told for line in output.get("framepack_reuse", [])]
    latents = newest_latents(host, "takes")
    return list(latents[:, :, 1:].split(9, 2)), made, said[-1] if said else ""


def test_another_take_is_made_beside_the_first_and_either_can_be_chosen(keeping: Host, three: Workflow):
    first, made, said = ran(keeping, three)
    assert said == "0 of 3 sections reused, 3 sampled"
    assert [made[i]["how"] for i in range(NUM)] == ["sampled"] * NUM
    assert all(re.fullmatch(r"[0-9a-f]{16}", made[i]["take"]) for i in range(NUM))
    assert all((keeping.base / "temp" / made[i]["picture"]["filename"]).is_file() for i in range(NUM))
    second, other, said = ran(keeping, three, takes="2: 17")
    assert said == "1 of 3 sections reused, 2 sampled"
    assert other[1]["seed"] == "17"
    assert [torch.equal(a, b) for a, b in zip(first, second, strict=True)] == [True, False, False]
    again, _, said = ran(keeping, three)
    assert all(map(torch.equal, first, again))
    assert said in ("", "3 of 3 sections reused, 0 sampled")  # the host's cache may hold them all


def test_a_locked_section_stays_while_the_one_before_it_changes_and_the_seam_is_said(keeping: Host, three: Workflow):
    first, made, _ = ran(keeping, three, seed=6)
    lock = f"2: locked {made[1]['take']}"
    second, other, said = ran(keeping, three, seed=6, takes=f"1: 99\n{lock}")
    assert [torch.equal(a, b) for a, b in zip(first, second, strict=True)][:2] == [False, True]
    assert other[1]["how"] == "locked"
    assert "section 2 is locked and what it continues has changed" in said
    assert [path.name[:16] for path in (keeping.base / "user" / "framepack_sections" / "locked").iterdir()] == [
        made[1]["take"]
    ]


@pytest.mark.parametrize(
    ("takes", "words"),
    [
        (
            "2: locked 0123456789abcdef",
            r"Section 2 is locked to take 0123456789abcdef.*not in the section store.*Unlock",
        ),
        ("2 17", "A line of takes"),
    ],
)
def test_a_lost_take_and_a_line_that_is_none_are_reported_when_queued(
    keeping: Host, three: Workflow, takes: str, words: str
):
    with pytest.raises(QueueError, match=words):
        graph_of(three, takes=takes).queue(keeping)


def test_a_take_of_a_section_that_is_not_there_is_reported(keeping: Host, three: Workflow):
    with pytest.raises(QueueError, match="sections 1 to 3; got section 4"):
        graph_of(three, takes="4: 17").queue(keeping)


def test_the_store_node_lists_by_video_and_clears(keeping: Host, three: Workflow):
    ran(keeping, three, seed=7)
    graph = Graph()
    graph.add("FramePackStore", action="show")
    (shown,) = graph.queue(keeping).outputs.values()
    assert "1 videos" in shown["text"][0]
    assert "a red star moves to the right" in shown["text"][0]
    assert "framepack_red_star.png" in shown["text"][0]
    cleared = Graph()
    cleared.add("FramePackStore", action="clear all and locked takes")
    (shown,) = cleared.queue(keeping).outputs.values()
    assert "0 videos" in shown["text"][0]
    assert not list((keeping.base / "user" / "framepack_sections").glob("*.safetensors"))
    wrong = Graph()
    wrong.add("FramePackStore", action="clear one video", video="7")
    with pytest.raises(QueueError, match="List the store first"):
        wrong.queue(keeping)


def test_a_private_run_leaves_no_file_in_the_store(keeping: Host, three: Workflow):
    folder: Path = keeping.base / "user" / "framepack_sections"
    before = sorted(folder.rglob("*"))
    ran(keeping, three, keep=False, seed=1234)
    assert sorted(folder.rglob("*")) == before
