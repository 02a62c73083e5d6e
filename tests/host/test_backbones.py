"""Small random models of every backbone sample sections in the real host, converted from a plain checkpoint or not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from framepack.checkpoints.convert import convert
from framepack.models.helios import HeliosDiT, HeliosSpec
from framepack.models.hunyuan import HunyuanDiT, HunyuanSpec
from framepack.models.wan import WanDiT, WanSpec
from tests.backbones import SMALL
from tests.framepack.test_convert import comfy
from tests.host.conftest import Graph, newest_latents, node_of
from tools.client import QueueError, Workflow, edited
from tools.host import Host

_HUNYUAN = {"heads": 2, "head_dim": 16, "double_blocks": 2, "single_blocks": 1, "refiner_blocks": 1}
# As wide for text as the built-in text encoder, so that the shipped workflow runs them.
MODELS = {
    "hunyuan": (
        HunyuanDiT,
        HunyuanSpec(**_HUNYUAN, text_dim=128, pooled_dim=128, image_dim=None, rope_axes=(4, 6, 6)),
    ),
    "wan-text": (WanDiT, WanSpec(heads=1, ffn_dim=64, blocks=2, text_dim=128)),
    "helios": (HeliosDiT, HeliosSpec(heads=1, ffn_dim=64, blocks=2, text_dim=128, key_scales=1)),
    "wan-image": (WanDiT, WanSpec(heads=1, ffn_dim=64, blocks=2, text_dim=128, in_channels=36, image_dim=24)),
}


@pytest.fixture(scope="module")
def converted(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """File names of the models, each converted from one as ComfyUI's single files spell it, where there are such."""
    folder, made = host.base / "models" / "diffusion_models", {}
    folder.mkdir(parents=True, exist_ok=True)
    for name, (dit, spec) in MODELS.items():
        torch.manual_seed(0)
        whole = {k: 0.05 * torch.randn_like(v) for k, v in dit(spec).state_dict().items()}
        made[name] = f"converted_{name}.safetensors"
        backbone = next(s.backbone for s in SMALL if type(s.spec) is type(spec))
        if not backbone.original:
            save_file(whole, folder / made[name])
            continue
        source = tmp_path_factory.mktemp("source") / f"{name}.safetensors"
        save_file(comfy({k: v for k, v in whole.items() if "clean_x" not in k}, backbone.names), source)
        convert(source, folder / made[name])
    yield made
    for name in made.values():
        (folder / name).unlink()


def latents_of(host: Host, workflow: Workflow, prefix: str) -> Tensor:
    """The latents of a workflow's SectionSampler."""
    graph = Graph({n: node for n, node in workflow.items() if node["class_type"] not in ("SaveVideo", "CreateVideo")})
    graph.add("SaveLatent", samples=[node_of(workflow, "SectionSampler"), 0], filename_prefix=prefix)
    graph.queue(host)
    return newest_latents(host, prefix)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("schedule", ["f1k1_x_g9_f1k1f2k2f16k4_td", "tc_f64k8f16k4f4k2f1k1_g9"])
def test_a_converted_model_samples_sections(host: Host, short: Workflow, converted, name: str, schedule: str):
    changes = {("FramePackLoadModel", "model_name"): converted[name], ("PackHistory", "schedule"): schedule}
    workflow = edited(short, changes)
    if name == "wan-image":
        graph = Graph(workflow)
        image = [node_of(workflow, "LoadImage"), 0]
        vision = graph.add("StandInVision", image=image, width=24)
        graph.workflow[node_of(workflow, "SectionSampler")]["inputs"]["clip_vision_output"] = vision
        workflow = graph.workflow
    got = latents_of(host, workflow, f"backbone_{name}")
    assert got.shape[:2] == (1, 16)
    assert got.shape[2] >= 10
    assert torch.isfinite(got).all()
    assert float(got[:, :, 1:].std()) > 0.1


def test_a_vision_output_of_another_width_is_refused(host: Host, short: Workflow, converted):
    graph = Graph(edited(short, {("FramePackLoadModel", "model_name"): converted["wan-image"]}))
    vision = graph.add("StandInVision", image=[node_of(graph.workflow, "LoadImage"), 0], width=17)
    graph.workflow[node_of(graph.workflow, "SectionSampler")]["inputs"]["clip_vision_output"] = vision
    with pytest.raises(QueueError, match="17 wide; this model takes 24. Encode the image with clip_vision_h"):
        graph.queue(host)


def test_the_loader_says_what_it_found(host: Host, converted):
    graph = Graph()
    graph.add("FramePackLoadModel", model_name=converted["wan-text"])
    graph.add("PreviewAny", source=["1", 0])
    said = graph.queue(host).outputs["1"]["text"][0]
    assert "2 blocks, 128 wide, kernels k1, k2, k4, k8" in said
