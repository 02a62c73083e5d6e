"""What is published: everything that README and help link to is in the archive, and what they name exists."""

from __future__ import annotations

import re
import tomllib
from functools import reduce
from importlib import import_module
from pathlib import Path

import pytest
from PIL import Image

from tools.host import REPO

LINK = re.compile(r"\]\(([^()\s#]+\.\w+)(?:#[^)]*)?\)")
PAGES = [REPO / "README.md", *sorted((REPO / "docs").glob("*.md")), *sorted((REPO / "web" / "docs").glob("*.md"))]
IGNORED = [line.strip() for line in (REPO / ".comfyignore").read_text("utf-8").splitlines() if line.strip()]
TOOL = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["tool"]["comfy"]


def links(page: Path) -> list[str]:
    return [link for link in LINK.findall(page.read_text("utf-8")) if "://" not in link]


def test_everything_that_readme_and_help_link_to_is_in_the_archive():
    for page in PAGES:
        for link in links(page):
            target = (page.parent / link).resolve()
            assert target.exists(), f"{page.name}: {link}"
            inside = target.relative_to(REPO).as_posix()
            first = page.parent == REPO or page.parent.name == "docs" and page.parent.parent.name == "web"
            assert not first or not any(inside.startswith(folder) for folder in IGNORED), f"{page.name}: {link}"


def test_help_pages_show_their_nodes():
    """A new page gets its picture by python -m tools.help_pictures."""
    shown = [page for page in (REPO / "web" / "docs").glob("*.md") if f"{page.stem}.png" in links(page)]
    assert len(shown) >= 17
    assert all(Image.open(page.with_suffix(".png")).width >= 200 for page in shown)


def test_icon_and_banner_have_the_registrys_shapes():
    icon, banner = Image.open(REPO / "web" / "icon.png"), Image.open(REPO / "web" / "banner.png")
    assert icon.width == icon.height <= 400
    assert banner.width * 9 == banner.height * 21
    assert TOOL["Icon"].endswith("/web/icon.png")
    assert TOOL["Banner"].endswith("/web/banner.png")


@pytest.mark.parametrize(
    "name", sorted(set(re.findall(r"`(framepack\.[\w.]+)`", (REPO / "docs/paper.md").read_text())))
)
def test_a_symbol_of_the_paper_exists(name: str):
    parts = name.split(".")
    module = next(i for i in range(len(parts), 1, -1) if (REPO / Path(*parts[:i])).with_suffix(".py").is_file())
    assert reduce(getattr, parts[module:], import_module(".".join(parts[:module]))) is not None
