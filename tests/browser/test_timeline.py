"""The planner's timeline in the real page: it edits the text and the nodes that are there without it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.test_live import put
from tools.host import REPO

SMALL = REPO / "workflows" / "image_to_video_small.json"
PROMPTS = "app.graph._nodes.find(n => n.type === 'EndpointPlanner').widgets.find(w => w.name === 'prompts').value"
PLACE = "[...app.graph._nodes.find(n => n.type === 'EndpointPlanner').pos]"
NEAR = """() => { const node = app.graph._nodes.find(n => n.type === 'EndpointPlanner');
    app.canvas.ds.scale = 1; app.canvas.ds.offset = [80 - node.pos[0], 120 - node.pos[1]];
}"""
BOTTOM = """() => { const node = app.graph._nodes.find(n => n.type === 'EndpointPlanner');
    app.canvas.ds.offset = [80 - node.pos[0], 700 - node.pos[1] - node.size[1]]; app.canvas.setDirty(true, true);
}"""


@pytest.fixture
def edited(page: Page) -> Page:
    """The small workflow with the planner's lower end in view, as large as it is."""
    page.evaluate("workflow => app.loadGraphData(workflow)", json.loads(SMALL.read_text()))
    expect(page.locator(".framepack-live img[src]")).to_have_count(2, timeout=20_000)
    page.evaluate(NEAR)
    page.evaluate(BOTTOM)
    page.wait_for_timeout(500)
    return page


def told(page: Page, *lines: str) -> None:
    put(page, "EndpointPlanner", "prompts", "\n".join(lines))
    expect(page.locator(".framepack-stretch")).to_have_count(len(lines))


def test_a_click_writes_a_prompt_and_a_click_on_it_changes_it(edited: Page):
    edited.locator(".framepack-track").click(position={"x": 40, "y": 10})
    edited.locator(".framepack-prompt").fill("a red star moves up")
    edited.locator(".framepack-prompt").press("Enter")
    expect(edited.locator(".framepack-stretch")).to_have_text("a red star moves up")
    assert edited.evaluate(PROMPTS) == "0s: a red star moves up"
    edited.locator(".framepack-stretch").click()
    edited.locator(".framepack-prompt").fill("a blue square rests")
    edited.get_by_role("button", name="Write").click()
    expect(edited.locator(".framepack-stretch")).to_have_text("a blue square rests")
    assert edited.evaluate(PROMPTS) == "0s: a blue square rests"


def test_a_stretch_is_split_where_it_is_clicked_and_a_border_is_dragged(edited: Page):
    told(edited, "0s: a red star rests")
    box = edited.locator(".framepack-track").bounding_box()
    edited.mouse.click(box["x"] + box["width"] / 2, box["y"] + 10)
    edited.locator(".framepack-prompt").fill("a red star moves left")
    edited.get_by_text("Split at").click()
    expect(edited.locator(".framepack-stretch")).to_have_text(["a red star rests", "a red star moves left"])
    assert edited.evaluate(PROMPTS).split("\n")[0].startswith("0-2.5")
    if folder := os.environ.get("FRAMEPACK_PICTURES"):
        edited.screenshot(path=Path(folder) / "timeline.png")
    where = edited.evaluate(PLACE)
    border = edited.locator(".framepack-border").bounding_box()
    edited.mouse.move(border["x"] + 5, border["y"] + 10)
    edited.mouse.down()
    edited.mouse.move(box["x"] + box["width"] / 4, box["y"] + 10, steps=4)
    edited.mouse.up()
    edited.wait_for_function(f"{PROMPTS}.startsWith('0-1.2')")
    first, second = edited.evaluate(PROMPTS).split("\n")
    end = first.split("s:")[0].split("-")[1]
    assert second.startswith(f"{end}-")
    assert first.endswith("a red star rests")
    assert edited.evaluate(PLACE) == where  # the node is not dragged along


def test_timecodes_brackets_and_other_characters_are_edited_in_place(edited: Page):
    put(edited, "EndpointPlanner", "prompts", "# 🙂 mine\n[0:00-0:02: 🙂 up] [0:02: down]")
    expect(edited.locator(".framepack-stretch")).to_have_text(["🙂 up", "down"])
    edited.locator(".framepack-stretch").nth(1).click()
    edited.locator(".framepack-prompt").fill("left")
    edited.locator(".framepack-prompt").press("Enter")
    edited.wait_for_function(f"{PROMPTS} === '# 🙂 mine\\n[0:00-0:02: 🙂 up] [0:02: left]'")


def test_a_dropped_image_is_a_key_frame_at_its_time(edited: Page):
    before = edited.evaluate("app.graph._nodes.length")
    edited.evaluate("""async () => {
        const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 64 });
        const blob = await new Promise(done => canvas.toBlob(done, "image/png"));
        const data = new DataTransfer(); data.items.add(new File([blob], "dropped.png", { type: "image/png" }));
        const track = document.querySelector(".framepack-track"), place = track.getBoundingClientRect();
        track.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true,
            clientX: place.left + place.width / 2, clientY: place.top + 5 }));
    }""")
    expect(edited.locator(".framepack-point")).to_have_count(1, timeout=10_000)
    assert edited.evaluate("app.graph._nodes.length") == before + 5
    queued = edited.evaluate("async () => (await app.graphToPrompt()).output")
    by_class = {node["class_type"]: node["inputs"] for node in queued.values()}
    assert by_class["FramePackEndpoint"]["keyframe"] == by_class["FramePackKeyframe"]["name"] == "key 1"
    assert 2.2 <= by_class["FramePackEndpoint"]["seconds"] <= 2.7
    assert by_class["EndpointPlanner"]["endpoints"][1] == by_class["SectionSampler"]["anchors"][1] == 0
    assert any(str(node["inputs"].get("image", "")).startswith("dropped") for node in queued.values())
