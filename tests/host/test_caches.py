"""Under every cache that the host has, a longer plan samples its new sections alone, with nothing on disk."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.host.test_main_job import sections_run
from tools.client import Workflow, edited, run
from tools.host import comfyui_folder, running

FORWARD = "f1k1_x_f16k4f2k2f1k1_g9"
SIZES = {"--cache-lru": ["100"]}  # options that need a value


def caches() -> list[str]:
    """The options by which this host chooses its cache; without one it takes its default. One keeps nothing at all."""
    source = (comfyui_folder() / "comfy" / "cli_args.py").read_text()
    return sorted(set(re.findall(r'add_argument\("(--cache-(?!none)[a-z]+)"', source)))


@pytest.mark.parametrize("option", ["default", *caches()])
def test_a_longer_plan_samples_its_new_section_alone(tmp_path: Path, short: Workflow, option: str):
    forward = edited(short, {("PackHistory", "schedule"): FORWARD})
    arguments = [] if option == "default" else [option, *SIZES.get(option, [])]
    with running(tmp_path, arguments=arguments, environment={"FRAMEPACK_STORE": "off"}) as host:
        first = run(host.url, edited(forward, {("EndpointPlanner", "seconds"): 2.4}))
        longer = run(host.url, edited(forward, {("EndpointPlanner", "seconds"): 3.6}))
        other = run(host.url, edited(forward, {("EndpointPlanner", "seconds"): 3.6, ("SectionSampler", "seed"): 3}))
    assert sections_run(first) == [0, 1]
    assert sections_run(longer) == [2]
    assert sections_run(other) == [0, 1, 2]
