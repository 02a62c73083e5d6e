"""What a person sees while a plan is sampled, over the real host's websocket."""

from __future__ import annotations

import asyncio
import io
import json
import re
import uuid
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import torch
from PIL import Image

from framepack.sampling.draws import InTurn
from tests.host.conftest import node_of
from tools.client import Workflow, edited, run
from tools.host import Host, running

PICTURE, TEXT = 1, 3  # the host's numbers of binary messages that are previews, and lines of text


async def watched(
    url: str, workflow: Workflow, pictures: list[bytes] | None = None
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """The host's events of a run, and the lines of text with the nodes that show them; previews go to `pictures`."""
    client, events, lines = uuid.uuid4().hex, [], []
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}/ws?clientId={client}") as socket:
        async with session.post(f"{url}/prompt", json={"prompt": workflow, "client_id": client}) as answer:
            assert answer.status == 200, await answer.text()
        async for message in socket:
            if message.type == aiohttp.WSMsgType.BINARY:
                if int.from_bytes(message.data[:4], "big") == TEXT:
                    size = int.from_bytes(message.data[4:8], "big")
                    lines.append((message.data[8 : 8 + size].decode(), message.data[8 + size :].decode()))
                if int.from_bytes(message.data[:4], "big") == PICTURE and pictures is not None:
                    pictures.append(message.data[8:])
                continue
            events.append(json.loads(message.data))
            if events[-1]["type"] in ("execution_success", "execution_error"):
                return events, lines
    raise AssertionError("the host closed the connection")


@pytest.fixture
def three(shipped: Workflow) -> Workflow:
    """Three sections of four steps."""
    values = {("EndpointPlanner", "seconds"): 3.6, ("SectionSampler", "steps"): 4, ("SectionSampler", "seed"): 31}
    return edited(shipped, values)


def test_progress_covers_the_whole_plan_and_tells_the_time_left(alive: Host, three: Workflow):
    events, lines = asyncio.run(watched(alive.url, three))
    sampler = node_of(three, "SectionSampler")
    steps = [e["data"]["value"] for e in events if e["type"] == "progress" and e["data"]["max"] == 12]
    assert steps == sorted(steps)  # newer hosts leave out what comes too fast
    assert set(steps) <= set(range(1, 13))
    assert steps[-1] == 12
    assert {node for node, _ in lines} == {sampler}
    texts = [text for _, text in lines]
    assert any(text.startswith("section 1 of 3, step ") for text in texts)
    assert any(text.startswith("section 3 of 3, step 4 of 4") for text in texts)
    assert any(text.endswith(" left") for text in texts)


def test_lines_of_text_reach_no_other_page(alive: Host, three: Workflow):
    async def seen_elsewhere() -> tuple[list[tuple[str, str]], list[bytes]]:
        elsewhere: list[bytes] = []
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{alive.url}/ws?clientId=other") as socket:

            async def listen() -> None:
                async for message in socket:
                    if message.type == aiohttp.WSMsgType.BINARY and int.from_bytes(message.data[:4], "big") == TEXT:
                        elsewhere.append(message.data)  # noqa: PERF401 - until it is cancelled

            listening = asyncio.create_task(listen())
            _, lines = await watched(alive.url, edited(three, {("SectionSampler", "seed"): 34}))
            listening.cancel()
        return lines, elsewhere

    lines, elsewhere = asyncio.run(seen_elsewhere())
    assert lines
    assert elsewhere == []


def test_what_is_finished_is_shown_as_an_animation_on_the_node(alive: Host, three: Workflow):
    slow = edited(three, {("SectionSampler", "seed"): 32, ("SectionSampler", "steps"): 24})
    before = len(alive.log_text())
    events, _ = asyncio.run(watched(alive.url, slow))
    sampler = node_of(three, "SectionSampler")
    shown = [
        e["data"]["output"]
        for e in events
        if e["type"] == "executed" and e["data"]["display_node"] == sampler and e["data"]["output"].get("animated")
    ]
    assert shown
    for output in shown:
        (item,) = output["images"]
        data = asyncio.run(viewed(alive.url, item))
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.n_frames >= 3  # frames that are alike become one, and a slow shape makes many
            assert picture.size == (128, 128)
    shares = re.findall(r"previews took (.*) % of the run", alive.log_text()[before:])
    assert shares
    assert float(shares[-1]) < 3


def test_the_animation_shows_what_was_kept_from_before_too(alive: Host, three: Workflow):
    """One section is appended: the picture holds what it looks at beside its own nine frames."""
    values = {("PackHistory", "schedule"): "td_f16k4f2k2f1k1_g9", ("SectionSampler", "steps"): 150}
    forward = edited(three, values | {("SectionSampler", "seed"): 33})
    run(alive.url, edited(forward, {("EndpointPlanner", "seconds"): 3.6}))
    events, _ = asyncio.run(watched(alive.url, edited(forward, {("EndpointPlanner", "seconds"): 4.8})))
    shown = [e["data"]["output"] for e in events if e["type"] == "executed" and e["data"]["output"]]
    pictures = [output for output in shown if output.get("animated") and "framepack" in str(output)]
    *_, output = pictures  # newer hosts also send what was kept
    data = asyncio.run(viewed(alive.url, output["images"][0]))
    with Image.open(io.BytesIO(data)) as picture:
        seconds = 0.0
        for i in range(picture.n_frames):  # those that are alike are one that lasts longer
            picture.seek(i)
            picture.load()
            seconds += picture.info["duration"] / 1000
    assert seconds * 30 / 4 > 20  # latent frames: 9, and what they look at


def test_the_section_in_hand_is_shown_where_previews_are_on(three: Workflow, tmp_path: Path):
    pictures: list[bytes] = []
    slow = edited(three, {("SectionSampler", "steps"): 24})
    with running(tmp_path, arguments=["--preview-method", "latent2rgb"]) as own:
        asyncio.run(watched(own.url, slow, pictures))
        shares = re.findall(r"previews took (.*) % of the run", own.log_text())
    assert pictures  # newer hosts leave out what comes too fast
    with Image.open(io.BytesIO(pictures[-1])) as picture:
        assert picture.size[0] >= 8
    assert float(shares[-1]) < 3


async def viewed(url: str, item: dict[str, str]) -> bytes:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/view", params=item) as answer:
        assert answer.status == 200
        return await answer.read()


def test_noise_in_turn_keeps_what_was_made_when_the_plan_grows(alive: Host, three: Workflow):
    changes = {("PackHistory", "schedule"): "td_f16k4f2k2f1k1_g9", ("SectionSampler", "noise"): "in turn"}
    forward = edited(three, changes)
    first = run(alive.url, forward)
    longer = run(alive.url, edited(forward, {("EndpointPlanner", "seconds"): 4.8}))
    made = [[node for node in done.ran if "section_" in node] for done in (first, longer)]
    assert len(made[0]) == 3
    assert len(made[1]) == 1


def test_noise_in_turn_is_one_generators():
    generator = torch.Generator().manual_seed(5)
    draws = InTurn(5)
    for i, n in enumerate((9, 4, 9)):
        expected = torch.randn((1, 16, n, 4, 4), generator=generator)
        assert torch.equal(draws.section(i, (1, 16, n, 4, 4), lambda shape: ())[0], expected)


def test_prompts_are_blended_around_a_border(alive: Host, three: Workflow):
    sampler = node_of(three, "SectionSampler")
    three[sampler]["inputs"]["clip"] = [node_of(three, "LoadFramePackTextEncoder"), 0]
    lines = "0-1.8s: a cyan star moves up\n1.8s: a cyan star moves down"
    told = edited(three, {("EndpointPlanner", "prompts"): lines, ("EndpointPlanner", "blend"): 1.0})
    done = run(alive.url, told)
    assert sum("blend_" in node for node in done.ran) == 1
    assert sum("prompt_" in node for node in done.ran) == 2


def test_a_run_of_many_sections_gives_each_its_own_prompt(alive: Host, three: Workflow):
    """Sections that share a node: each has the conditioning of its own prompt."""
    sampler = node_of(three, "SectionSampler")
    three[sampler]["inputs"]["clip"] = [node_of(three, "LoadFramePackTextEncoder"), 0]
    lines = "\n".join(f"{i * 0.2:.1f}s: a {'green' if i % 2 else 'cyan'} square moves up" for i in range(300))
    values = {("EndpointPlanner", "seconds"): 60.0, ("EndpointPlanner", "prompts"): lines}
    values |= {
        ("PackHistory", "schedule"): "td_f1k1_g1",
        ("SectionSampler", "steps"): 1,
        ("SectionSampler", "cfg"): 1.0,
    }
    ends = ("SaveVideo", "CreateVideo", "FramePackVAEDecode")
    workflow = {n: node for n, node in edited(three, values).items() if node["class_type"] not in ends}
    workflow["90"] = {"class_type": "SaveLatent", "inputs": {"samples": [sampler, 0], "filename_prefix": "many"}}
    done = run(alive.url, workflow)
    assert sum("section_" in node for node in done.ran) <= 250
    assert sum("prompt_" in node for node in done.ran) == 2
