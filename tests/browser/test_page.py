"""The shipped workflows in the real page."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tools.host import REPO

NAMES = sorted(path.stem for path in (REPO / "workflows").glob("*.json"))


def load(page: Page, name: str) -> None:
    workflow = json.loads((REPO / "workflows" / f"{name}.json").read_text())
    page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
    page.wait_for_timeout(500)


def dialogs(page: Page) -> str:
    """What any dialog over the page says."""
    return " ".join(page.locator("[role=dialog]").all_inner_texts())


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_opens_with_no_missing_node(page: Page, name: str):
    load(page, name)
    missing = page.evaluate("app.graph._nodes.map(n => n.type).filter(t => !LiteGraph.registered_node_types[t])")
    assert missing == []
    assert "issing node" not in dialogs(page)
    if name.endswith("_small"):
        assert "issing model" not in dialogs(page)
    if folder := os.environ.get("FRAMEPACK_PICTURES"):
        page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.mark.parametrize("name", NAMES)
def test_the_page_queues_what_the_api_twin_says(page: Page, name: str):
    load(page, name)
    queued = page.evaluate("async () => (await app.graphToPrompt()).output")
    twin = json.loads((REPO / "workflows" / "api" / f"{name}.json").read_text())
    assert {n: node["class_type"] for n, node in queued.items()} == {n: node["class_type"] for n, node in twin.items()}
    for number, node in twin.items():
        for key, value in node["inputs"].items():
            assert queued[number]["inputs"][key] == value, f"{node['class_type']}.{key}"


def test_help_pages_are_served(page: Page, page_host):
    for path in (REPO / "web" / "docs").glob("*.md"):
        answer = page.request.get(f"{page_host.url}/extensions/framepack-nodes/docs/{path.name}")
        assert answer.ok
        assert answer.text() == path.read_text()
