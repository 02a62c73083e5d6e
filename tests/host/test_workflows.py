"""Every shipped API workflow runs to its end on the real host.

Under the shipped names lie small random files for the DiT and a small VAE; text and vision loaders, which the host
builds at full size, are replaced by small ones in the test's copy, and sizes and steps are cut.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from framepack.checkpoints.convert import convert
from framepack.models.helios import HeliosDiT, HeliosSpec
from framepack.models.hunyuan import HunyuanDiT, HunyuanSpec
from framepack.shapes import builtin
from framepack.units import Kernel
from tools.client import QueueError, Workflow, edited, run
from tools.host import REPO, Host
from tools.shipped import F1, GGUF, I2V, VAE, page_name
from tools.shipped_helios import FOLDERS
from tools.shipped_helios import VAE as HELIOS_VAE

NAMES = sorted(path.stem for path in (REPO / "workflows" / "api").glob("*.json"))
RELEASED = [name for name in NAMES if not name.endswith("_small")]
SECONDS = {"single_frame": 0.1, "key_frames": 3.6}
CLIP = 37  # frames of the video that is extended
HELIOS_FRAMES = 66  # two clips: two sections, or the video and one
FRAMES = {name: HELIOS_FRAMES for name in NAMES if name.startswith("helios")}
FRAMES |= {"text_to_video": 69, "key_frames": 109, "extend_forwards": CLIP + 36, "extend_backwards": CLIP + 36}


@pytest.fixture(scope="module")
def files(host: Host) -> Iterator[None]:
    models = host.base / "models"
    sizes = {"heads": 2, "head_dim": 16, "double_blocks": 1, "single_blocks": 1, "refiner_blocks": 1}
    spec = HunyuanSpec(**sizes, text_dim=128, pooled_dim=128, image_dim=24, rope_axes=(4, 6, 6))
    torch.manual_seed(0)
    weights = {k: 0.05 * torch.randn_like(v) for k, v in HunyuanDiT(spec).state_dict().items()}
    placed = [models / "diffusion_models" / name for name in (I2V, F1)] + [models / "vae" / VAE]
    for path in placed:
        path.parent.mkdir(parents=True, exist_ok=True)
    for path in placed[:2]:
        save_file(weights, path)
    convert(placed[0], models / "diffusion_models" / GGUF, "Q4_0")
    shutil.copyfile(REPO / "framepack" / "shapes" / "assets" / "vae" / "framepack_shapes_vae.safetensors", placed[2])
    folders = place_helios(models)
    yield
    for path in (*placed, models / "diffusion_models" / GGUF, models / "vae" / HELIOS_VAE):
        path.unlink()
    for folder in folders:
        shutil.rmtree(folder)


def place_helios(models: Path) -> list[Path]:
    """Small random weights of Helios in shards, as released, in the folders that the workflows name; and its VAE."""
    kernels = tuple(Kernel.short(k) for k in (1, 2, 4))
    spec = HeliosSpec(heads=1, ffn_dim=64, blocks=2, text_dim=128, kernels=kernels)
    weights = {k: 0.05 * torch.randn_like(v) for k, v in HeliosDiT(spec).state_dict().items()}
    names = [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = {key: names[i % 2] for i, key in enumerate(weights)}
    folders = [models / "diffusion_models" / folder for folder in FOLDERS.values()]
    for folder in folders:
        folder.mkdir(parents=True)
        for name in names:
            save_file({key: weights[key] for key in weights if index[key] == name}, folder / name)
        (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    shutil.copyfile(models / "vae" / VAE, models / "vae" / HELIOS_VAE)
    return folders


def cut(workflow: Workflow, name: str) -> Workflow:
    """The test's copy."""
    copy = edited(
        workflow,
        {
            ("FramePackResolution", "base"): 64,
            ("SectionSampler", "steps"): 2,
            ("EndpointPlanner", "seconds"): SECONDS.get(name, 2.4 if "extend" not in name else 1.2),
            ("FramePackEndpoint", "seconds"): 2.4,
        },
    )
    for node in copy.values():
        inputs = node["inputs"]
        match node["class_type"]:
            case "DualCLIPLoader" | "CLIPLoader":
                node["class_type"] = "LoadFramePackTextEncoder"
                node["inputs"] = {"text_encoder_name": "framepack_shapes_text.safetensors"}
            case "CLIPVisionEncode":
                node["class_type"] = "StandInVision"
                node["inputs"] = {"image": inputs["image"], "width": 24}
            case "EndpointPlanner" | "ImageScale" | "PackHistory" | "FramePackPyramid" if inputs["height"] == 384:
                inputs |= {"width": 64, "height": 64}
            case "EndpointPlanner" if inputs["width"] == 832:
                inputs |= {"width": 96, "height": 48}
    return {n: node for n, node in copy.items() if node["class_type"] != "CLIPVisionLoader"}


def shipped(name: str) -> Workflow:
    return json.loads((REPO / "workflows" / "api" / f"{name}.json").read_text())


def made(host: Host, done) -> Path:
    (item,) = [i for out in done.outputs.values() for i in out.get("images", []) if i["type"] == "output"]
    return host.base / "output" / item["subfolder"] / item["filename"]


@pytest.mark.parametrize("name", RELEASED)
def test_a_shipped_workflow_runs_to_its_end(host: Host, files, name: str):
    path = made(host, run(host.url, cut(shipped(name), name)))
    if path.suffix == ".png":
        assert Image.open(path).size[0] >= 48
        return
    with av.open(str(path)) as file:
        assert sum(1 for _ in file.decode(video=0)) == FRAMES.get(name, 73)


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_models_file_can_be_had_from_the_dialog(name: str):
    page = json.loads((REPO / "workflows" / f"{page_name(name)}.json").read_text())
    for node in page["nodes"]:
        values = [v for v in node["widgets_values"] if isinstance(v, str) and v.endswith(".safetensors")]
        assert [m["name"] for m in node["properties"].get("models", [])] == values
        for model in node["properties"].get("models", []):
            assert model["url"].endswith(model["name"])
            assert model["directory"] in ("diffusion_models", "vae", "text_encoders", "clip_vision")


def test_a_loop_runs_with_its_first_image_as_the_end_image(host: Host):
    short = {("EndpointPlanner", "seconds"): 1.2, ("SectionSampler", "steps"): 2}
    path = made(host, run(host.url, edited(shipped("loop_small"), short)))
    with av.open(str(path)) as file:
        assert sum(1 for _ in file.decode(video=0)) == 37


def test_an_image_embedding_of_another_width_is_refused(host: Host, files):
    workflow = cut(shipped("image_to_video"), "image_to_video")
    for node in workflow.values():
        if node["class_type"] == "StandInVision":
            node["inputs"]["width"] = 32
    with pytest.raises(QueueError, match="clip_vision_output is 32 wide; this model takes 24"):
        run(host.url, workflow)


def test_an_end_image_of_another_size_is_refused(host: Host, files):
    Image.new("RGB", (640, 300), "blue").save(host.base / "input" / "wide.png")
    workflow = cut(shipped("start_and_end_frame"), "start_and_end_frame")
    loaders = [n for n in workflow.values() if n["class_type"] == "LoadImage"]
    (end,) = [n for n in loaders if n["_meta"]["title"] == "End image"]
    end["inputs"]["image"] = "wide.png"
    with pytest.raises(QueueError, match=r"end_latent.*\d+x\d+ pixels.*got \d+x\d+"):
        run(host.url, workflow)


def test_a_schedule_of_the_other_order_is_said(host: Host, files):
    workflow = edited(cut(shipped("image_to_video_f1"), "image_to_video_f1"), {("PackHistory", "schedule"): "inverted"})
    before = len(host.log_text())
    run(host.url, workflow)
    assert "The plan is inverted, but the model was trained for forward order" in host.log_text()[before:]


def test_positions_beyond_those_that_a_file_states_are_said(host: Host):
    folder = host.base / "models" / "diffusion_models"
    folder.mkdir(parents=True, exist_ok=True)
    with safe_open(builtin.DIT, "pt") as file:
        stated = file.metadata() | {"framepack.positions": "[0, 5]"}
    save_file(load_file(builtin.DIT), folder / "few_positions.safetensors", stated)
    workflow = edited(
        shipped("image_to_video_small"), {("EndpointPlanner", "seconds"): 1.2, ("SectionSampler", "steps"): 1}
    )
    for node in workflow.values():
        if "model_name" in node["inputs"]:
            node["inputs"]["model_name"] = "few_positions.safetensors"
    before = len(host.log_text())
    run(host.url, workflow)
    assert "the model was trained on 0 to 5" in host.log_text()[before:]
