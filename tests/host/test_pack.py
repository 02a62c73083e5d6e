"""The pack in a real ComfyUI: what it offers, and what bad input gets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.host.conftest import Graph, node_of
from tools.client import QueueError, Workflow, edited, run
from tools.host import REPO, Host
from tools.locales import FOLDER, LANGUAGES, english

PUBLIC = ("FramePackLoadModel", "PackHistory", "EndpointPlanner", "SectionSampler", "FramePackVAEDecode")


@pytest.mark.parametrize("kind", PUBLIC)
def test_a_node_is_there_and_explains_every_input(host: Host, kind: str):
    (info,) = host.get(f"/object_info/{kind}").values()
    assert info["description"]
    assert info["category"].startswith("FramePack")
    for part in ("required", "optional"):
        for name, spec in info["input"].get(part, {}).items():
            assert len(spec[1]["tooltip"]) > 5, f"{kind}.{name}"
    assert (REPO / "web" / "docs" / f"{kind}.md").is_file()


def test_the_built_in_model_is_listed_where_stock_nodes_look(host: Host):
    info = host.get("/object_info")
    assert "framepack_shapes_dit.safetensors" in str(info["FramePackLoadModel"]["input"])
    assert "framepack_shapes_vae.safetensors" in str(info["VAELoader"]["input"])
    assert "framepack_red_star.png" in str(info["LoadImage"]["input"])


def test_the_template_browser_lists_the_workflows(host: Host):
    listed = host.get("/workflow_templates")
    names = {path.stem for path in (REPO / "workflows").glob("*.json")}
    assert set(listed["framepack-nodes"]) == names
    assert min(names) == "image_to_video_small", "the starter is listed first"


def test_pack_history_shows_a_picture_and_the_token_counts(alive: Host, graph: Graph):
    graph.add("PackHistory", schedule="f1k1_x_g9_f1k1f2k2f16k4_td", width=832, height=480)
    graph.workflow["2"] = {
        "class_type": "EndpointPlanner",
        "inputs": {"schedule": ["1", 0], "seconds": 5.0, "fps": 30.0, "width": 832, "height": 480, "start_image": True},
    }
    graph.workflow["3"] = {"class_type": "PreviewAny", "inputs": {"source": ["2", 0]}}
    done = graph.queue(alive)
    assert done.outputs["1"]["text"] == ["3926 context + 14040 generated = 17966 tokens"]
    assert done.outputs["2"]["text"][0].startswith("4 sections, 145 frames")
    for node in ("1", "2"):
        (picture,) = done.outputs[node]["images"]
        assert Image.open(alive.base / "temp" / picture["filename"]).size[0] == 960
    plan = json.loads(done.outputs["3"]["text"][0])
    assert plan["num_pix_frames"] == 145


BAD = {
    "a bad schedule": (
        {("PackHistory", "schedule"): "f1k1_x_g9_f1k0"},
        ["PackHistory", "got 0", "_f1k»0«"],
    ),
    "a length of 0": ({("EndpointPlanner", "seconds"): 0}, ["EndpointPlanner", "seconds", "0.1"]),
    "ten hours": ({("EndpointPlanner", "seconds"): 36_000.0}, ["EndpointPlanner", "seconds", "1200"]),
    "a size off the unit": ({("EndpointPlanner", "width"): 70}, ["EndpointPlanner", "70", "multiple of 16"]),
    "an unknown gap": ({("EndpointPlanner", "gap"): "far"}, ["EndpointPlanner", "far", "capped:N"]),
    "no such model": (
        {("FramePackLoadModel", "model_name"): "gone.safetensors"},
        ["FramePackLoadModel", "models/diff"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_by_name_and_the_host_stays(alive: Host, short: Workflow, case: str):
    values, words = BAD[case]
    with pytest.raises(QueueError) as caught:
        run(alive.url, edited(short, values))
    for word in words:
        assert word in str(caught.value)


def test_a_plan_of_another_size_than_the_image_is_refused(alive: Host, short: Workflow):
    planner = short[node_of(short, "EndpointPlanner")]["inputs"]
    del planner["start_latent"]
    planner["width"] = 96
    with pytest.raises(QueueError, match=r"start_latent.*96x64.*64x64"):
        run(alive.url, short)


def test_a_plan_takes_its_size_from_the_images_latent(alive: Host, short: Workflow):
    planner = short[node_of(short, "EndpointPlanner")]["inputs"]
    planner |= {"width": 640, "height": 480}
    done = run(alive.url, short)
    assert done.outputs[node_of(short, "EndpointPlanner")]["text"][0].endswith("64x64 pixels")


def test_a_start_image_that_is_declared_but_not_connected_is_refused(alive: Host, short: Workflow):
    sampler = short[node_of(short, "SectionSampler")]["inputs"]
    del sampler["start_latent"]
    with pytest.raises(QueueError, match=r"start_latent is not connected[^.]*\. Connect"):
        run(alive.url, short)


@pytest.fixture
def placed(host: Host):
    """Put files into the host's model folders, and take them out again."""
    files: list[Path] = []

    def place(kind: str, name: str) -> Path:
        path = host.base / "models" / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        files.append(path)
        return path

    yield place
    for path in files:
        path.unlink(missing_ok=True)


def load(host: Host, name: str) -> None:
    graph = Graph()
    model = graph.add("FramePackLoadModel", model_name=name)
    graph.add("PreviewAny", source=model)
    graph.queue(host)


def test_files_that_are_none_of_ours_are_refused(alive: Host, placed):
    dit = REPO / "framepack" / "shapes" / "assets" / "diffusion_models" / "framepack_shapes_dit.safetensors"
    save_file({"blocks.0.weight": torch.zeros(3)}, placed("diffusion_models", "other.safetensors"))
    with pytest.raises(QueueError, match=r"other\.safetensors.*blocks\.0\.weight"):
        load(alive, "other.safetensors")
    cut = placed("diffusion_models", "cut.safetensors")
    cut.write_bytes(dit.read_bytes()[:-1000])
    with pytest.raises(QueueError, match=r"cut\.safetensors cannot be read"):
        load(alive, "cut.safetensors")


def test_drift_is_measured_on_the_graph(alive: Host, graph: Graph):
    link = graph.add("EmptyImage", width=64, height=48, batch_size=6, color=255)
    graph.workflow["2"] = {
        "class_type": "FramePackDrift",
        "inputs": {"images": link, "fps": 24.0, "measures": "brightness,dynamic"},
    }
    graph.workflow["3"] = {"class_type": "PreviewAny", "inputs": {"source": ["2", 0]}}
    done = graph.queue(alive)
    report = json.loads(done.outputs["3"]["text"][0])
    assert report["num_pix_frames"] == 6
    assert report["measures"]["brightness"]["contrast"] == 0
    assert len(done.outputs["2"]["images"]) == 1


def test_every_node_that_a_person_places_has_a_name_that_the_search_finds(host: Host):
    ours = {
        name: info
        for name, info in host.get("/object_info").items()
        if info["python_module"] == "custom_nodes.framepack-nodes"
    }
    left_out = {name for name, info in ours.items() if info.get("dev_only") or info["deprecated"]}
    assert left_out == {
        "FramePackSections",
        "FramePackGather",
        "FramePackFrames",
        "FramePackVAECheck",
        "FramePackJob",
        "FramePackStarts",
        "FramePackVideos",
        "LoadFramePackModel",
        "FramePackSampler",
    }
    for name in ours.keys() - left_out:
        assert ours[name]["display_name"].startswith("FramePack"), name
    if "search_aliases" in next(iter(ours.values())):
        assert "prompt timeline" in ours["EndpointPlanner"]["search_aliases"]


def test_the_texts_in_other_languages_are_of_nodes_and_inputs_that_exist(host: Host):
    """What is new among the nodes' texts is shown in English until python -m tools.locales has run."""
    now = set(leaves(english(host.get("/object_info"))))
    assert set(leaves(json.loads((FOLDER / "en" / "nodeDefs.json").read_text("utf-8")))) <= now


def leaves(part: Any, *place: str) -> Iterator[tuple[str, ...]]:
    if isinstance(part, str):
        yield place
        return
    for key, inner in part.items():
        yield from leaves(inner, *place, key)


def test_the_host_serves_the_texts_of_every_language(host: Host):
    served = host.get("/i18n")
    for language in ("en", *LANGUAGES):
        assert served[language]["nodeDefs"]["SectionSampler"]["display_name"].startswith("FramePack"), language
