"""The shipped workflows in the real page."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tools.host import REPO

NAMES = sorted(path.stem for path in (REPO / "workflows").glob("*.json"))
RENDER = "async on => await app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)"
RENDERINGS = {"classic": False, "Nodes 2.0": True}
FRAMES = """async count => {
    while (count--) await new Promise(requestAnimationFrame);
}"""
# Pairs of nodes that cover each other, the width of all, and the zoom.
LOOKS = """() => {
    const nodes = app.graph._nodes, box = (n) => [n.pos[0], n.pos[1] - 30, n.pos[0] + n.size[0], n.pos[1] + n.size[1]];
    const covers = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
    const after = (a, i) => nodes.slice(i + 1).filter((b) => covers(box(a), box(b)));
    const pairs = nodes.flatMap((a, i) => after(a, i).map((b) => `${a.title} over ${b.title}`));
    const left = Math.min(...nodes.map((n) => n.pos[0])), right = Math.max(...nodes.map((n) => n.pos[0] + n.size[0]));
    return { pairs, width: right - left, zoom: app.canvas.ds.scale, groups: app.graph._groups.map((g) => g.title) };
}"""

# Nodes of the pack that their own picture marks as wrong.
OWN_FAULTS = """() => [...document.querySelectorAll('.framepack-live')]
    .filter(box => box.style.outlineStyle === 'solid').map(box => box.textContent)"""


def load(page: Page, name: str) -> None:
    workflow = json.loads((REPO / "workflows" / f"{name}.json").read_text())
    page.evaluate("async workflow => await app.loadGraphData(workflow)", workflow)
    page.evaluate(FRAMES, 3)


def settled(page: Page) -> dict[str, Any]:
    """How the graph looks once a third of a second changes nothing more."""
    looks, before, patience = page.evaluate(LOOKS), None, 20
    while looks != before and (patience := patience - 1):
        page.wait_for_timeout(300)
        before, looks = looks, page.evaluate(LOOKS)
    return looks


def dialogs(page: Page) -> str:
    """What any dialog over the page says."""
    return " ".join(page.locator("[role=dialog]").all_inner_texts())


@pytest.mark.parametrize("rendering", RENDERINGS)
def test_every_workflow_opens_in_numbered_groups_with_no_node_covered(page: Page, rendering: str):
    page.evaluate(RENDER, RENDERINGS[rendering])
    covered = {}
    for name in NAMES:
        load(page, name)
        looks = settled(page)
        missing = page.evaluate("app.graph._nodes.map(n => n.type).filter(t => !LiteGraph.registered_node_types[t])")
        assert missing == [], name
        assert "issing node" not in dialogs(page), name
        if name.endswith("_small"):
            assert "issing model" not in dialogs(page), name
        covered[name] = looks["pairs"]
        stretched = 1.2 if RENDERINGS[rendering] else 1.0  # older pages draw Nodes 2.0 that much wider
        assert looks["width"] <= 2200 * stretched, name
        assert looks["zoom"] >= 0.7 / stretched, name
        assert [title[0] for title in looks["groups"]] == ["1", "2", "3", "4", "5"], name
        assert page.evaluate(OWN_FAULTS) == [], name
        if folder := os.environ.get("FRAMEPACK_PICTURES"):
            page.screenshot(path=Path(folder) / f"{name}_{rendering[:5]}.png")
    assert covered == {name: [] for name in NAMES}


def test_the_page_queues_what_the_api_twins_say(page: Page):
    for name in NAMES:
        load(page, name)
        queued = page.evaluate("async () => (await app.graphToPrompt()).output")
        twin = json.loads((REPO / "workflows" / "api" / f"{name.removeprefix('released_')}.json").read_text())
        kinds = {number: node["class_type"] for number, node in twin.items()}
        assert {number: node["class_type"] for number, node in queued.items()} == kinds, name
        for number, node in twin.items():
            for key, value in node["inputs"].items():
                assert queued[number]["inputs"][key] == value, f"{name}: {node['class_type']}.{key}"


def test_help_pages_are_served(page: Page, page_host):
    for path in (REPO / "web" / "docs").glob("*.md"):
        answer = page.request.get(f"{page_host.url}/extensions/framepack-nodes/docs/{path.name}")
        assert answer.ok
        assert answer.text() == path.read_text()
