"""A farm in the real page: its finished sections are shown as takes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.test_live import put
from tests.host.test_farm import HERE, has_ray
from tools.host import REPO

SMALL = REPO / "workflows" / "image_to_video_small.json"
# The sampler's inputs go to FramePack Save Job as well, and the job file to a farm; the sampler stays, unused.
WITH_FARM = """values => {
    const graph = app.graph, sampler = graph._nodes.find(n => n.type === 'SectionSampler');
    const place = (kind, x) => {
        const node = LiteGraph.createNode(kind);
        node.pos = [sampler.pos[0] + x, sampler.pos[1] + 900];
        graph.add(node);
        return node;
    };
    const job = place('FramePackSaveJob', 0), farm = place('FramePackFarm', 450);
    sampler.inputs.forEach(input => {
        const link = input.link != null && graph.links[input.link];
        const slot = link ? job.inputs.findIndex(i => i.name === input.name) : -1;
        if (slot >= 0) graph.getNodeById(link.origin_id).connect(link.origin_slot, job, slot);
    });
    job.connect(0, farm, farm.inputs.findIndex(i => i.name === 'path'));
    const model = graph.links[sampler.inputs.find(i => i.name === 'model').link];
    graph.getNodeById(model.origin_id).connect(0, farm, farm.inputs.findIndex(i => i.name === 'model'));
    const decode = graph._nodes.find(n => n.type === 'FramePackVAEDecode');
    farm.connect(0, decode, decode.inputs.findIndex(i => i.name === 'samples'));
    graph.remove(sampler);
    for (const [name, value] of Object.entries(values)) farm.widgets.find(w => w.name === name).value = value;
    job.widgets.find(w => w.name === 'steps').value = 2;
}"""

NEAR = """() => { const node = app.graph._nodes.find(n => n.type === 'FramePackFarm');
    app.canvas.ds.scale = 1; app.canvas.ds.offset = [80 - node.pos[0], 80 - node.pos[1]];
    app.canvas.setDirty(true, true);
}"""


@pytest.mark.slow
def test_the_sections_of_a_farm_are_shown_as_takes(page: Page):
    if not has_ray():
        pytest.skip("Ray is not in this host's Python")
    page.evaluate("workflow => app.loadGraphData(workflow)", json.loads(SMALL.read_text()))
    expect(page.locator(".framepack-live img[src]")).to_have_count(2, timeout=20_000)
    put(page, "EndpointPlanner", "seconds", 2.4)
    page.evaluate(WITH_FARM, HERE)
    page.evaluate("app.queuePrompt(0, 1)")
    panel = page.locator(".framepack-takes")
    expect(panel.filter(has_text="0 of 2 sections reused, 2 sampled")).to_have_count(1, timeout=120_000)
    expect(panel.locator(".framepack-section img[src]")).to_have_count(2)
    expect(panel.get_by_role("button")).to_have_count(0)  # a job file's seed is its own
    if folder := os.environ.get("FRAMEPACK_PICTURES"):
        page.evaluate(NEAR)
        page.wait_for_timeout(1500)
        page.screenshot(path=Path(folder) / "farm.png")
