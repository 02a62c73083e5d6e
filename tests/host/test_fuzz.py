"""Random prompts on a real host are refused or run; none ends with a bare error, and none ends the host."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

from tools.client import run as queued
from tools.fuzz.areas import AREAS
from tools.fuzz.cases import run
from tools.fuzz.drawing import drawing_on
from tools.fuzz.prompts import every_node, prompts_on
from tools.host import Host


def test_the_prompt_that_random_faults_are_put_into_runs(alive: Host):
    workflow = every_node()
    nodes = [number for number, node in workflow.items() if node["class_type"] in ("SectionSampler", "FramePackVideo")]
    for place, number in enumerate(nodes, 900):
        workflow[str(place)] = {"class_type": "PreviewAny", "inputs": {"source": [number, 0]}}
    assert set(nodes) <= set(queued(alive.url, workflow).ran)


def test_a_random_prompt_is_refused_or_runs(alive: Host):
    area = replace(AREAS["prompts"], begin=lambda _: nullcontext(prompts_on(alive)))
    assert "\n".join(map(str, run(area, range(area.quick)))) == ""


def test_a_random_request_for_a_picture_is_answered_with_one_or_a_message(alive: Host):
    before = sorted(path for path in alive.base.rglob("*") if path.suffix != ".log")
    area = replace(AREAS["drawing"], begin=lambda _: nullcontext(drawing_on(alive)))
    assert "\n".join(map(str, run(area, range(area.quick)))) == ""
    assert sorted(path for path in alive.base.rglob("*") if path.suffix != ".log") == before
