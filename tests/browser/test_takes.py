"""Takes, locks, drift and reuse in the real page: what a person sees and presses."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.test_live import put
from tools.host import REPO

SMALL = REPO / "workflows" / "image_to_video_small.json"
RUN, LIVE = 45_000, 20_000  # ms, on a machine that is busy


def picture(page: Page, name: str) -> None:
    if folder := os.environ.get("FRAMEPACK_PICTURES"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def queue(page: Page) -> None:
    page.evaluate("app.queuePrompt(0, 1)")


def rows(page: Page) -> Locator:
    return page.locator(".framepack-section")


def summary(page: Page, text: str) -> None:
    expect(page.locator(".framepack-takes").filter(has_text=text)).to_have_count(1, timeout=RUN)


@pytest.fixture
def run(page: Page, request: pytest.FixtureRequest) -> Page:
    """The small workflow in forward order, three sections of two steps, run once."""
    seed = 5 + zlib.crc32(request.node.name.encode()) % 1000  # the host keeps what it has made for another test
    page.evaluate("workflow => app.loadGraphData(workflow)", json.loads(SMALL.read_text()))
    expect(page.locator(".framepack-live img[src]")).to_have_count(2, timeout=20_000)
    for kind, name, value in (
        ("PackHistory", "schedule", "td_f16k4f2k2f1k1_g9"),
        ("EndpointPlanner", "seconds", 3.6),
        ("SectionSampler", "steps", 2),
        ("SectionSampler", "seed", seed),
        ("SectionSampler", "takes", ""),
    ):
        put(page, kind, name, value)
    queue(page)
    summary(page, "sampled")
    expect(rows(page)).to_have_count(3, timeout=LIVE)
    return page


def test_a_person_makes_another_take_chooses_the_first_again_and_locks(run: Page):
    section = rows(run).nth(1)
    expect(section.locator("img")).to_have_count(1, timeout=LIVE)
    expect(section.locator("[data-chosen=true]")).to_have_count(1, timeout=LIVE)
    section.get_by_text("Another take").click()
    summary(run, "1 of 3 sections reused, 2 sampled")
    expect(rows(run).nth(1).locator("img")).to_have_count(2, timeout=LIVE)
    takes = run.evaluate(
        "app.graph._nodes.find(n => n.type === 'SectionSampler').widgets.find(w => w.name === 'takes').value"
    )
    assert takes.startswith("2: ")
    first = takes.split(", ")[1]
    picture(run, "takes")
    rows(run).nth(1).locator("img").first.click()
    expect(rows(run).nth(1).locator("[data-chosen=true]")).to_have_attribute("title", f"seed {first}")
    expect(run.locator(".framepack-live").filter(has_text="3 of 3 sections reused, 0 to sample")).to_have_count(
        1, timeout=LIVE
    )
    rows(run).nth(1).get_by_text("Lock", exact=True).click()
    queue(run)
    expect(rows(run).nth(1).get_by_text("Unlock")).to_have_count(1, timeout=LIVE)
    put(run, "SectionSampler", "seed", 4)
    expect(run.locator(".framepack-live").filter(has_text="1 of 3 sections reused, 2 to sample")).to_have_count(
        1, timeout=LIVE
    )
    queue(run)
    summary(run, "section 2 is locked and what it continues has changed")
    picture(run, "locked")


def test_before_a_run_the_picture_tells_what_an_edit_makes_again(run: Page):
    live = run.locator(".framepack-live")
    expect(live.filter(has_text="3 of 3 sections reused, 0 to sample")).to_have_count(1, timeout=LIVE)
    put(run, "EndpointPlanner", "seconds", 4.8)
    expect(live.filter(has_text="3 of 4 sections reused, 1 to sample")).to_have_count(1, timeout=LIVE)
    put(run, "SectionSampler", "steps", 3)
    expect(live.filter(has_text="0 of 4 sections reused, 4 to sample")).to_have_count(1, timeout=LIVE)
    picture(run, "reuse")


def test_the_drift_of_finished_sections_is_drawn(run: Page):
    drift = run.locator(".framepack-drift")
    expect(drift).to_be_visible(timeout=20_000)
    assert drift.evaluate("image => image.naturalWidth") == 960
    expect(run.locator(".framepack-takes").filter(has_text="the band of the sections before it")).to_have_count(
        1, timeout=LIVE
    )


def test_panels_are_neither_saved_nor_queued(run: Page):
    saved = run.evaluate("app.graph.serialize()")
    (sampler,) = [node for node in saved["nodes"] if node["type"] == "SectionSampler"]
    assert not any(isinstance(value, dict) for value in sampler["widgets_values"])
    queued = run.evaluate("async () => (await app.graphToPrompt()).output")
    assert all("framepack_takes" not in node["inputs"] for node in queued.values())
