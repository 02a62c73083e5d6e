"""Take the pictures of docs/walkthrough.md: a newcomer's first video, in Nodes 2.0.

    COMFYUI_PATH=DIR COMFYUI_PYTHON=PYTHON python -m tools.walkthrough

COMFYUI_PATH and COMFYUI_PYTHON name a newer ComfyUI, whose page shows the templates. Needs playwright and Chromium.
"""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw
from playwright.sync_api import Page, expect, sync_playwright

from .host import REPO, running

log = logging.getLogger(__name__)
WIDTH, HEIGHT = 1600, 950
MODERN = "async () => await app.extensionManager.setting.set('Comfy.VueNodes.Enabled', true)"
VALUE = """([kind, name, value]) => {
    const widget = app.graph._nodes.find(n => n.type === kind).widgets.find(w => w.name === name);
    widget.value = value;
    widget.callback?.(value);
}"""
PROMPT = """text => {
    const node = app.graph._nodes.find(n => n.type === 'CLIPTextEncode' || n.title === 'Prompt');
    node.widgets[0].value = text;
}"""
# The graph from one group's left edge on, at a zoom at which it is read.
GROUP = """([number, zoom]) => {
    const group = app.graph._groups.find(g => g.title.startsWith(number));
    app.canvas.ds.scale = zoom;
    app.canvas.ds.offset = [100 / zoom - group.pos[0], 110 / zoom - group.pos[1]];
    app.canvas.setDirty(true, true);
}"""
WORDS = "a blue circle moves {} on a plain background"
RUN = 240_000  # ms


def circle(file: Path) -> None:
    """The newcomer's own image."""
    image = Image.new("RGB", (512, 512), (120, 120, 120))
    ImageDraw.Draw(image).ellipse((196, 196, 316, 316), fill=(40, 60, 230))
    image.save(file)


def keep(page: Page, name: str, width: int = WIDTH, height: int = HEIGHT) -> None:
    """The page's upper left part, as a small picture."""
    page.wait_for_timeout(2500)
    image = Image.open(BytesIO(page.screenshot(clip={"x": 0, "y": 0, "width": width, "height": height})))
    image.convert("RGB").resize((1100, 1100 * height // width)).save(
        REPO / "docs" / f"walkthrough_{name}.jpg", quality=80
    )
    log.info("%s: %d x %d", name, width, height)


def put(page: Page, kind: str, name: str, value: str) -> None:
    """A value as a person types it."""
    page.evaluate(VALUE, [kind, name, value])


def queue(page: Page, said: str) -> None:
    """Click Run, and wait until the sampler says what it did and the video is there."""
    page.get_by_role("button", name="Run", exact=True).first.click()
    expect(page.locator(".framepack-takes").filter(has_text=said)).to_have_count(1, timeout=RUN)
    expect(page.locator("video").first).to_be_visible(timeout=RUN)


def walk(page: Page, folder: Path) -> None:
    """The steps, each with its picture."""
    page.get_by_role("button", name="Templates").first.click()
    page.get_by_text("framepack-nodes", exact=True).last.click()
    expect(page.get_by_text("image_to_video_small").first).to_be_attached(timeout=30_000)
    keep(page, "1_templates")
    page.get_by_text("image_to_video_small", exact=True).first.click()
    expect(page.locator(".framepack-live img[src]")).to_have_count(2, timeout=60_000)
    keep(page, "2_open")
    circle(folder / "circle.png")
    put(page, "LoadImage", "image", "circle.png")
    page.evaluate(PROMPT, WORDS.format("to the right"))
    keep(page, "3_own")
    queue(page, "0 of 5 sections reused, 5 sampled")
    page.evaluate(GROUP, ["4", 0.75])
    keep(page, "4_video", 1200, 900)
    put(page, "EndpointPlanner", "prompts", f"0-1.2s: {WORDS.format('up')}\n1.2s: {WORDS.format('to the right')}")
    told = page.locator(".framepack-live").filter(has_text="4 of 5 sections reused, 1 to sample")
    expect(told).to_have_count(1, timeout=20_000)
    page.evaluate(GROUP, ["3", 0.75])
    keep(page, "5_changed", 1200, 900)
    queue(page, "4 of 5 sections reused, 1 sampled")
    page.evaluate(GROUP, ["4", 0.75])
    keep(page, "6_again", 1200, 900)


def main() -> int:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as host, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        own = host.base / "input"
        own.mkdir(exist_ok=True)
        page.goto(host.url)
        page.wait_for_function("window.app?.graph && 'SectionSampler' in LiteGraph.registered_node_types")
        page.evaluate(MODERN)
        walk(page, own)
    return 0


if __name__ == "__main__":
    sys.exit(main())
