"""Workflows, API prompts and stored sections of older versions run on this one.

tests/upgrade/VERSION holds them as they were.
0.1.0a are the prompts of a time before it, with the older node ids and fewer inputs.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.host.conftest import Graph
from tests.host.test_store import TAKEN
from tests.host.test_workflows import cut, files, made  # noqa: F401 - files is a fixture
from tools.client import edited, run
from tools.host import REPO, Host, running

OLDER = REPO / "tests" / "upgrade"
PROMPTS = sorted(OLDER.glob("*/api/*.json"))
MADE_ON = "0.3.75"  # the host of the stored sections
OFTEN = ("image_to_video_small", "image_to_video_f1", "key_frames", "start_and_end_frame")


def name_of(path: Path) -> str:
    return f"{path.parts[-3]}-{path.stem}"


def slow_unless_often(path: Path) -> object:
    often = path.stem in OFTEN
    return pytest.param(path, id=name_of(path), marks=() if often else pytest.mark.slow)


@pytest.mark.parametrize("path", map(slow_unless_often, PROMPTS))
def test_a_prompt_of_an_older_version_runs_to_its_end(host: Host, files: None, path: Path):  # noqa: F811
    workflow = json.loads(path.read_text("utf-8"))
    if path.stem.endswith("_small"):
        short = edited(workflow, {("EndpointPlanner", "seconds"): 1.2, ("SectionSampler", "steps"): 2})
    else:
        short = cut(workflow, path.stem)
    assert made(host, run(host.url, short)).stat().st_size > 0


def test_sections_that_an_older_version_stored_are_taken(tmp_path: Path):
    """By the host that they were made on: another one's layers, attention or VAE may round in another place."""
    stored = OLDER / "0.1.0" / "store"
    shutil.copytree(stored, tmp_path / "store")
    workflow = json.loads((stored / "prompt.json").read_text("utf-8"))
    with running(tmp_path / "base", environment={"FRAMEPACK_STORE": str(tmp_path / "store")}) as host:
        Graph(workflow).queue(host)
        if host.get("/system_stats")["system"]["comfyui_version"] == MADE_ON:
            assert host.log_text().count(TAKEN) == len(list(stored.glob("*.safetensors")))
        assert "is broken" not in host.log_text()
