"""What the page shows of nodes: few inputs at first, names for texts, what a run says; older workflows."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Page, expect

from tests.browser.test_page import RENDER, RENDERINGS, dialogs
from tools.host import REPO

KEPT_BACK = {
    "PackHistory": {"rate", "width", "height"},
    "EndpointPlanner": {"gap", "without_start", "section_length", "halve_gaps", "extend"},
    "SectionSampler": {"guidance", "cfg_above", "history_guidance", "noise", "keep"},
}
OLDER = sorted((REPO / "tests" / "upgrade").glob("*/*.json"))
PLACE = """kind => {
    app.graph.clear();
    const node = LiteGraph.createNode(kind);
    app.graph.add(node);
    return node.widgets.filter((w) => w.advanced || w.options?.advanced).map((w) => w.name);
}"""
TALL = "() => { const n = app.graph._nodes[0]; return n.computeSize()[1]; }"
OPEN = """name => {
    const button = app.graph._nodes[0].widgets.find((w) => w.type === "button" && w.name.includes(name));
    const click = new MouseEvent("click", { clientX: 300, clientY: 300 });
    button.callback(null, app.canvas, app.graph._nodes[0], [0, 0], click);
}"""


@pytest.mark.parametrize("kind", KEPT_BACK)
def test_inputs_that_are_rarely_changed_wait_until_they_are_asked_for(page: Page, kind: str):
    page.evaluate(RENDER, False)
    assert set(page.evaluate(PLACE, kind)) >= KEPT_BACK[kind]
    few = page.evaluate(TALL)
    page.evaluate("app.graph._nodes[0].showAdvanced = true")
    assert page.evaluate(TALL) >= few + 20 * len(KEPT_BACK[kind])


@pytest.mark.parametrize("rendering", RENDERINGS)
def test_a_schedule_can_be_chosen_by_name_and_is_saved_as_before(page: Page, rendering: str):
    page.evaluate(RENDER, RENDERINGS[rendering])
    page.evaluate(PLACE, "PackHistory")
    saved = page.evaluate("app.graph.serialize().nodes[0].widgets_values")
    page.evaluate(OPEN, "schedule")
    page.locator(".litemenu-entry", has_text="forward").first.click()
    assert page.evaluate("app.graph._nodes[0].widgets[0].value") == "f1k1_x_f16k4f2k2f1k1_g9"
    now = page.evaluate("app.graph.serialize().nodes[0].widgets_values")
    assert now[1:] == saved[1:]
    assert len(now) == len(saved) == 4


def test_what_a_node_says_of_a_run_is_shown(page: Page):
    page.evaluate(PLACE, "FramePackLoraLoader")
    page.evaluate("app.graph._nodes[0].onExecuted({ text: ['12 of 12 layers matched'] })")
    expect(page.locator(".framepack-said")).to_have_text("12 of 12 layers matched")


def test_the_blueprint_is_one_node_that_queues_its_whole_graph(page: Page):
    (path,) = (REPO / "subgraphs").glob("*.json")
    page.evaluate("async workflow => await app.loadGraphData(workflow)", json.loads(path.read_text("utf-8")))
    assert page.evaluate("app.graph._nodes.length") == 1
    queued = page.evaluate("async () => (await app.graphToPrompt()).output")
    kinds = {node["class_type"]: node["inputs"] for node in queued.values()}
    assert {"SectionSampler", "EndpointPlanner", "FramePackLoadModel", "CreateVideo"} <= kinds.keys()
    assert kinds["FramePackLoadModel"]["model_name"].startswith("FramePackI2V")


def test_workflows_of_released_versions_open_and_queue_what_they_did(page: Page):
    assert len(OLDER) == 10
    for path in OLDER:
        name = f"{path.parent.name}/{path.stem}"
        page.evaluate("async workflow => await app.loadGraphData(workflow)", json.loads(path.read_text("utf-8")))
        page.wait_for_timeout(300)
        assert "issing node" not in dialogs(page), name
        queued = page.evaluate("async () => (await app.graphToPrompt()).output")
        twin = json.loads((path.parent / "api" / path.name).read_text("utf-8"))
        for number, node in twin.items():
            same = {key: queued[number]["inputs"].get(key) for key in node["inputs"]}
            assert same == node["inputs"], f"{name}: {node['class_type']}"
