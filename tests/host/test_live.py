"""The route that draws nodes while they are edited."""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import unquote

import pytest
from PIL import Image

from tools.host import Host

SCHEDULE = "f1k1_x_g9_f1k1f2k2f16k4_td"


def ask(host: Host, body: Any) -> tuple[int, bytes, str]:
    """Status, content and line of text of one request."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{host.url}/framepack/draw", data)) as answer:
            return answer.status, answer.read(), unquote(answer.headers["X-FramePack-Text"])
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read(), ""


def history(schedule: str = SCHEDULE) -> dict[str, Any]:
    return {"node": "PackHistory", "inputs": {"schedule": schedule}}


def planner(**inputs: Any) -> dict[str, Any]:
    return {"node": "EndpointPlanner", "inputs": {"schedule": history(), **inputs}}


def test_a_schedule_is_drawn_as_a_run_would_draw_it(host: Host):
    status, content, text = ask(host, history())
    assert status == 200
    assert Image.open(io.BytesIO(content)).size[0] == 960
    assert text == "3926 context + 14040 generated = 17966 tokens"


def test_a_plan_is_drawn_through_its_links(host: Host):
    endpoint = {"node": "FramePackEndpoint", "inputs": {"seconds": 4.9, "prompt": "a red star"}}
    status, content, text = ask(host, planner(seconds=10.0, endpoints=endpoint))
    assert status == 200, content
    assert "sections" in text
    assert ask(host, planner(seconds=10.0))[2] != text
    assert Image.open(io.BytesIO(content)).size[0] == 960


def test_a_widget_linked_to_an_unknown_node_is_drawn_by_its_default(host: Host):
    sized = planner(width={"node": "FramePackResolution", "inputs": {}})
    assert ask(host, sized) == ask(host, planner())


def test_a_fault_in_a_schedule_names_its_character(host: Host):
    status, content, _ = ask(host, history("f1k1_x_g9_f1k1f2k2f16k4_dt"))
    fault = json.loads(content)
    assert status == 400
    assert fault["text"][fault["at"] :] in ("dt", "_dt")


def test_what_is_not_connected_yet_is_no_fault(host: Host):
    status, content, _ = ask(host, {"node": "EndpointPlanner", "inputs": {}})
    assert status == 409
    assert "Connect schedule" in json.loads(content)["message"]


@pytest.mark.parametrize("name", ["video_latent", "model"])
def test_what_only_a_run_can_tell_is_no_fault(host: Host, name: str):
    """The shipped workflows that extend a video, and those of Helios, have such links."""
    status, content, _ = ask(host, planner(**{name: {"node": "VAEEncode", "inputs": {}}}))
    assert status == 409
    assert name in json.loads(content)["message"]


def test_an_image_that_only_gives_its_size_is_not_needed_for_the_picture(host: Host):
    linked = planner(start_latent={"node": "VAEEncode", "inputs": {}})
    assert ask(host, linked) == ask(host, planner())


def test_a_fault_of_another_node_is_left_to_that_node(host: Host):
    status, content, _ = ask(host, {"node": "EndpointPlanner", "inputs": {"schedule": history("f1k1_x")}})
    assert status == 409
    assert "schedule" in json.loads(content)["message"]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"{", "JSON"),
        (b"[" * 100_000, "JSON"),
        ([], "node"),
        ({"node": "LoadImage", "inputs": {}}, "LoadImage"),
        ({"node": ["PackHistory"], "inputs": {}}, "node"),
        (planner(seconds=-1), "seconds"),
        (planner(seconds="long"), "seconds"),
        (planner(gap="nonsense"), "nonsense"),
        (planner(prompts="0:05 a"), "0:05 a"),
    ],
    ids=str,
)
def test_a_bad_request_gets_status_400_and_a_message(alive: Host, body: Any, named: str):
    status, content, _ = ask(alive, body)
    assert status == 400
    assert named in json.loads(content)["message"]


def test_links_without_end_and_large_requests_are_rejected(alive: Host):
    chain: dict[str, Any] = {"node": "FramePackEndpoint", "inputs": {}}
    for _ in range(100):
        chain = {"node": "FramePackEndpoint", "inputs": {"previous": chain}}
    assert ask(alive, planner(endpoints=chain))[0] == 409
    assert ask(alive, history("f" * 300_000))[0] == 400


def test_nothing_is_written(host: Host):
    before = {path for path in host.base.rglob("*") if path.is_file()}
    ask(host, planner(seconds=7.0))
    after = {path for path in host.base.rglob("*") if path.is_file()}
    assert {path.suffix for path in after - before} <= {".log"}
