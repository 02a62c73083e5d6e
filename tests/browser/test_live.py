"""Pictures of nodes while they are edited, in the real page."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tools.host import REPO

SMALL = REPO / "workflows" / "image_to_video_small.json"
SET = """([kind, name, value]) => {
    const widget = app.graph._nodes.find(n => n.type === kind).widgets.find(w => w.name === name);
    widget.value = value; widget.callback?.(value);
}"""


@pytest.fixture
def edited(page: Page) -> Page:
    """The small workflow, opened and drawn."""
    page.evaluate("workflow => app.loadGraphData(workflow)", json.loads(SMALL.read_text()))
    expect(page.locator(".framepack-live img[src]")).to_have_count(2, timeout=20_000)
    return page


def put(page: Page, kind: str, name: str, value: object) -> None:
    page.evaluate(SET, [kind, name, value])


def source(page: Page, at: int) -> str:
    return page.locator(".framepack-live img").nth(at).get_attribute("src") or ""


def test_schedule_and_plan_are_drawn_without_a_run(edited: Page):
    widths = edited.locator(".framepack-live img").evaluate_all("all => all.map(i => i.naturalWidth)")
    assert widths == [960, 960]
    expect(edited.locator(".framepack-live").filter(has_text="tokens")).to_have_count(1)
    expect(edited.locator(".framepack-live").filter(has_text="5 sections")).to_have_count(1)
    if folder := os.environ.get("FRAMEPACK_PICTURES"):
        edited.screenshot(path=Path(folder) / "live.png")


def test_an_edit_is_drawn_in_the_node_and_in_those_behind_it(edited: Page):
    before = source(edited, 0), source(edited, 1)
    put(edited, "PackHistory", "schedule", "f1k1_x_g9_f1k1f2k2f4k4f8k8_td")
    expect(edited.locator(".framepack-live img").nth(0)).not_to_have_attribute("src", before[0])
    expect(edited.locator(".framepack-live img").nth(1)).not_to_have_attribute("src", before[1])
    put(edited, "EndpointPlanner", "seconds", 10.0)
    expect(edited.locator(".framepack-live").filter(has_text="9 sections")).to_have_count(1)


def test_an_error_is_marked_once_at_its_character_until_it_is_mended(edited: Page):
    red = "app.graph._nodes.filter(n => n.has_errors).map(n => n.type).sort()"
    put(edited, "PackHistory", "schedule", "f1k1_x_g9_f1k0")
    expect(edited.locator(".framepack-live mark")).to_have_text("0")
    expect(edited.locator(".framepack-live").filter(has_text="Waiting for schedule")).to_have_count(1)
    assert edited.evaluate(red) == ["PackHistory"]
    if folder := os.environ.get("FRAMEPACK_PICTURES"):
        edited.screenshot(path=Path(folder) / "live_fault.png")
    put(edited, "PackHistory", "schedule", "forward")
    expect(edited.locator(".framepack-live mark")).to_have_count(0)
    assert edited.evaluate(red) == []


def test_what_is_saved_and_queued_stays_as_it_was(edited: Page):
    workflow = json.loads(SMALL.read_text())
    saved = edited.evaluate("app.graph.serialize()")
    values = {node["type"]: node.get("widgets_values") for node in workflow["nodes"]}
    for node in saved["nodes"]:
        if node["type"] in ("PackHistory", "EndpointPlanner"):
            before = values[node["type"]]  # inputs that are newer than the file come last
            assert node["widgets_values"][: len(before)] == before
    queued = edited.evaluate("async () => (await app.graphToPrompt()).output")
    assert all("framepack_picture" not in node["inputs"] for node in queued.values())
