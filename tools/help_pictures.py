"""Take the pictures of the help pages: each node as the page draws it, with a plan where it has one.

    python -m tools.help_pictures [URL]

URL is a running ComfyUI with the pack; without it one is started. Needs playwright and Chromium.
"""

from __future__ import annotations

import logging
import shutil
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from .host import CACHE, REPO, running

log = logging.getLogger(__name__)
DOCS = REPO / "web" / "docs"
COLORS = 64  # of a picture, which keeps it small
PLACE = """kind => {
    app.graph.clear();
    const node = LiteGraph.createNode(kind);
    node.pos = [500, 250];
    app.graph.add(node);
    if (kind === "EndpointPlanner") {
        const schedule = LiteGraph.createNode("PackHistory");
        schedule.pos = [1100, 250];
        app.graph.add(schedule);
        schedule.connect(0, node, 0);
    }
    node.setSize([Math.max(node.size[0], 340), node.size[1]]);
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [0, 0];
    app.canvas.setDirty(true, true);
}"""
BOX = """kind => {
    const node = app.graph._nodes.find((node) => node.type === kind);
    const page = app.canvas.canvas.getBoundingClientRect();
    return [node.pos[0] + page.left, node.pos[1] + page.top - 30, node.size[0], node.size[1] + 30];
}"""


def take(page: Page, kind: str) -> Image.Image:
    """A node of a kind."""
    page.evaluate(PLACE, kind)
    page.wait_for_timeout(1800)
    x, y, width, height = page.evaluate(BOX, kind)
    clip = {"x": x - 12, "y": y - 12, "width": width + 24, "height": height + 24}
    return Image.open(BytesIO(page.screenshot(clip=clip))).convert("RGB").quantize(COLORS)


def show(page: Path) -> None:
    """Put the picture below a help page's title, where it is not there."""
    text, line = page.read_text("utf-8"), f"![The node]({page.stem}.png)"
    if line not in text:
        title, _, rest = text.partition("\n")
        page.write_text(f"{title}\n\n{line}\n{rest}", "utf-8")


def take_all(url: str) -> None:
    """The pictures of all help pages."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1400, "height": 1400})
        page.goto(url)
        page.wait_for_function(
            "window.app?.graph && 'SectionSampler' in LiteGraph.registered_node_types", timeout=90_000
        )
        page.evaluate("async () => await app.extensionManager.setting.set('Comfy.VueNodes.Enabled', false)")
        for help_page in sorted(DOCS.glob("*.md")):
            picture = take(page, help_page.stem)
            picture.save(help_page.with_suffix(".png"), optimize=True)
            show(help_page)
            log.info("%s: %d x %d", help_page.stem, *picture.size)
        browser.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if len(sys.argv) > 1:
        take_all(sys.argv[1])
    else:
        with running(CACHE / "demo") as host:
            take_all(host.url)
