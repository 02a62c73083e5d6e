"""Every input of every node is checked against its schema, when a workflow is queued and again when a node runs."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.host.conftest import Graph, node_of
from tools.client import QueueError, Workflow
from tools.host import Host

HUGE = 10**400
UNKNOWN_OPTIONS = [
    ("FramePackLoadModel", "model_name", 17),
    ("FramePackLoadModel", "weight_dtype", "fp3"),
    ("FramePackLoadModel", "attention", "magic"),
    ("FramePackLoadModel", "order", "sideways"),
    ("LoadFramePackTextEncoder", "text_encoder_name", "gone.safetensors"),
    ("EndpointPlanner", "without_start", "neither"),
    ("EndpointPlanner", "extend", "sideways"),
    ("SectionSampler", "noise", "pink"),
    ("FramePackSolver", "solver", "dpm"),
    ("FramePackResolution", "fit", "squeeze"),
    ("FramePackVideoEncode", "extend", ["a"]),
]
BEYOND = [
    ("SectionSampler", "cfg", math.nan),
    ("SectionSampler", "cfg_above", math.nan),
    ("SectionSampler", "guidance", math.inf),
    ("SectionSampler", "history_guidance", -math.inf),
    ("SectionSampler", "steps", 0),
    ("SectionSampler", "seed", HUGE),
    ("EndpointPlanner", "seconds", math.nan),
    ("EndpointPlanner", "fps", math.inf),
    ("EndpointPlanner", "seconds", HUGE),
    ("EndpointPlanner", "width", 0),
    ("EndpointPlanner", "height", 17),
    ("PackHistory", "rate", math.nan),
    ("FramePackEndpoint", "seconds", math.nan),
    ("FramePackVideo", "fps", math.nan),
    ("FramePackStepCache", "threshold", math.nan),
]
SHORTENED = 20  # characters of a value that a message shows


@pytest.fixture
def every(short: Workflow) -> Graph:
    """The shipped workflow through every public node of the pack but the LoRA's, with one output."""
    graph = Graph(short)

    def inputs(kind: str) -> dict[str, Any]:
        return graph.workflow[node_of(graph.workflow, kind)]["inputs"]

    sampler, planner, vae = inputs("SectionSampler"), inputs("EndpointPlanner"), inputs("FramePackVAEDecode")["vae"]
    fitted = graph.add("FramePackResolution", image=[node_of(short, "LoadImage"), 0], base=64, fit="crop")
    sampler["start_latent"] = graph.add("FramePackVideoEncode", images=fitted, vae=vae, extend="forwards")
    sampler["sampler"] = graph.add("FramePackSolver", solver="unipc")
    sampler["sigmas"] = graph.add("FramePackSigmas", steps=2, width=64, height=64, num_lat_frames=9)
    sampler["model"] = graph.add("FramePackStepCache", model=sampler["model"], threshold=0.1)
    sampler["anchors"] = graph.add("FramePackKeyframe", name="key", latent=sampler["start_latent"])
    planner["endpoints"] = graph.add("FramePackEndpoint", seconds=2.4, prompt="", keyframe="key")
    planner["seconds"] = 4.8
    samples = [node_of(short, "SectionSampler"), 0]
    inputs("SaveVideo")["video"] = graph.add("FramePackVideo", samples=samples, vae=vae, fps=30.0)
    for kind in ("FramePackVAEDecode", "CreateVideo"):
        del graph.workflow[node_of(graph.workflow, kind)]
    return graph


def refused(host: Host, graph: Graph) -> str:
    with pytest.raises(QueueError) as caught:
        graph.queue(host)
    return str(caught.value)


@pytest.mark.parametrize(("kind", "name", "value"), UNKNOWN_OPTIONS + BEYOND)
def test_a_value_that_the_schema_does_not_allow_is_refused_before_anything_runs(
    alive: Host, every: Graph, kind: str, name: str, value: Any
):
    every.workflow[node_of(every.workflow, kind)]["inputs"][name] = {"__value__": value}
    words = refused(alive, every)
    assert f"{kind} ({node_of(every.workflow, kind)})" in words
    assert name in words.lower()
    assert str(value)[:SHORTENED] in words.replace("'", "") or value == ["a"]
    assert "Traceback" not in words


def primitive(graph: Graph, value: Any) -> list[Any]:
    """A link to a value, of which no validation can tell."""
    if isinstance(value, float):
        return graph.add("PrimitiveFloat", value=value)
    return graph.add("PrimitiveInt" if isinstance(value, int) else "PrimitiveString", value=value)


LINKED = [
    ("SectionSampler", "cfg", math.nan),
    ("SectionSampler", "steps", 0),
    ("SectionSampler", "steps", 10**18),
    ("EndpointPlanner", "width", 17),
    ("EndpointPlanner", "width", 0),
    ("EndpointPlanner", "fps", -1.0),
    ("EndpointPlanner", "gap", "far"),
    ("PackHistory", "schedule", "f1k1_x"),
    ("FramePackKeyframe", "name", "start"),
    ("FramePackStepCache", "threshold", math.nan),
    ("FramePackVideo", "fps", math.nan),
]


@pytest.mark.parametrize(("kind", "name", "value"), LINKED)
def test_a_linked_value_that_the_schema_does_not_allow_is_refused_when_its_node_runs(
    alive: Host, every: Graph, kind: str, name: str, value: Any
):
    every.workflow[node_of(every.workflow, kind)]["inputs"][name] = primitive(every, value)
    words = refused(alive, every)
    assert words.startswith(f"{kind} (")
    assert str(value) in words.replace("»…«", "")


@pytest.mark.parametrize("value", ["a latent", 17, {}, {"samples": 1}, True])
@pytest.mark.parametrize(
    ("kind", "name"),
    [("FramePackVideo", "samples"), ("SectionSampler", "start_latent"), ("SectionSampler", "model")],
)
def test_a_value_in_place_of_a_link_is_refused(alive: Host, every: Graph, kind: str, name: str, value: Any):
    every.workflow[node_of(every.workflow, kind)]["inputs"][name] = value
    words = refused(alive, every)
    assert words.startswith(f"{kind} (")
    assert name in words


PLANS = [17, {}, "", "[]", '{"sections": []}', "null"]
EMPTY = {"schedule": "f1k1_x_g9_f1k1", "num_lat_frames": 1, "height": 64, "width": 64, "sections": []}
EMPTY["anchors"] = [{"slot": "start", "frame": 0}]


@pytest.mark.parametrize("plan", [*PLANS, json.dumps(EMPTY)])
def test_what_is_no_plan_or_has_no_sections_is_refused(alive: Host, every: Graph, plan: Any):
    every.workflow[node_of(every.workflow, "SectionSampler")]["inputs"]["plan"] = plan
    assert "plan" in refused(alive, every)


@pytest.mark.parametrize(("step", "levels"), [(2, "[0.0]"), (9, "[]")])
def test_sigmas_of_one_level_or_none_are_refused(alive: Host, every: Graph, step: int, levels: str):
    sampler = every.workflow[node_of(every.workflow, "SectionSampler")]["inputs"]
    split = every.add("SplitSigmas", sigmas=sampler["sigmas"], step=step)
    sampler["sigmas"] = [split[0], 1]
    assert f"sigmas must be 2 noise levels or more, each 0 or more; got {levels}" in refused(alive, every)


def test_a_linked_name_of_a_key_frame_is_taken(alive: Host, every: Graph):
    every.workflow[node_of(every.workflow, "FramePackKeyframe")]["inputs"]["name"] = primitive(every, "key")
    every.queue(alive)


def test_an_input_that_a_node_does_not_have_is_refused_by_name(alive: Host, every: Graph):
    every.workflow[node_of(every.workflow, "FramePackSolver")]["inputs"]["solvers"] = primitive(every, "unipc")
    assert "'solvers' is not an input of this node" in refused(alive, every)


ONCE = [
    ("FramePackSolver", "solver", "dpm", "got 'dpm'"),
    ("PackHistory", "schedule", "f1k1_x_g9_f1k1f2k2f16k4_dt", "schedule f1k1_x_g9_f1k1f2k2f16k4_»dt«: Unknown part"),
    ("PackHistory", "width", 40, "got 40"),
    ("EndpointPlanner", "gap", "far", "got 'far'"),
    ("EndpointPlanner", "seconds", 0.0, "seconds"),
    ("FramePackLoadModel", "model_name", "gone.safetensors", "'gone.safetensors' is not in models/diffusion_models"),
    ("FramePackKeyframe", "name", "start", "got 'start'"),
]


@pytest.mark.parametrize(("kind", "name", "value", "words"), ONCE)
def test_a_fault_is_reported_once_on_its_own_node(
    alive: Host, every: Graph, kind: str, name: str, value: Any, words: str
):
    number = node_of(every.workflow, kind)
    every.workflow[number]["inputs"][name] = value
    body = json.dumps({"prompt": every.workflow}).encode()
    request = urllib.request.Request(f"{alive.url}/prompt", body, {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    found = json.load(caught.value)["node_errors"]
    assert list(found) == [number]
    (error,) = found[number]["errors"]
    assert words in error["details"]
    assert "\n" not in error["details"]


def test_every_number_has_bounds_and_every_option_a_list(host: Host):
    ours = {kind: info for kind, info in host.get("/object_info").items() if info["category"].startswith("FramePack")}
    assert len(ours) > 15
    for kind, info in ours.items():
        for name, (io_type, options, *_) in (
            info["input"].get("required", {}) | info["input"].get("optional", {})
        ).items():
            assert io_type not in ("INT", "FLOAT") or {"min", "max"} <= options.keys(), f"{kind}.{name}"
            assert io_type != "COMBO" or isinstance(options["options"], list), f"{kind}.{name}"
