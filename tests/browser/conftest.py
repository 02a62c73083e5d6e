"""The real page of a real host, in a headless browser. Its event loop ends with the module."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.host import Host, running

pytest.importorskip("playwright", reason="playwright is not installed")
from playwright.sync_api import Browser, Page, sync_playwright  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

CLEAR = """async rendering => {
    app.graph.clear();
    localStorage.clear();  // the workflow that was open
    await app.extensionManager.setting.set('Comfy.VueNodes.Enabled', rendering);
}"""

# The map of the graph lies over the lower right corner, where Nodes 2.0 draws a node's buttons in a page of this size.
WITHOUT_MAP = "async () => await app.extensionManager.setting.set('Comfy.Minimap.Visible', false)"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        if os.environ.get("FRAMEPACK_REQUIRE_BROWSER"):
            pytest.fail("no chromium on the PATH, and the browser tests are required here")
        pytest.skip("no chromium on the PATH; install it to run the browser tests")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])


@pytest.fixture(scope="session")
def page_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with running(tmp_path_factory.mktemp("page")) as running_host:
        yield running_host


@pytest.fixture(scope="module")
def opened(browser: Browser, page_host: Host) -> Page:
    """The page, opened once for a file of tests: it takes longer to open than a test does."""
    page = browser.new_context(viewport={"width": 1600, "height": 1000}).new_page()
    page.goto(page_host.url)
    page.wait_for_function(
        "window.app?.graph && Object.keys(LiteGraph.registered_node_types).length > 100", timeout=90_000
    )
    page.wait_for_function("'SectionSampler' in LiteGraph.registered_node_types", timeout=30_000)
    page.evaluate(WITHOUT_MAP)
    return page


@pytest.fixture
def page(opened: Page) -> Iterator[Page]:
    """The page with an empty graph, in the rendering that the front end begins with, or the one that is asked for."""
    rendering = opened.evaluate("app.extensionManager.setting.get('Comfy.VueNodes.Enabled')")
    if asked := os.environ.get("FRAMEPACK_RENDERING"):
        rendering = asked != "classic"
        opened.evaluate(CLEAR, rendering)
    yield opened
    opened.keyboard.press("Escape")  # a dialog or a menu
    opened.evaluate(CLEAR, rendering)
