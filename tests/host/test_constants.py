"""Modulation tables in the real host: what is kept over steps, sections and queues changes no result."""

# ruff: noqa: F811 - fixtures of other files
from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.host.conftest import Graph, files_of, newest_latents
from tests.host.test_loading import BUILTIN, folder, metadata, relative, weights  # noqa: F401 - fixtures
from tests.host.test_lora import loras  # noqa: F401 - a fixture
from tools.host import Host

SAMPLER = {"seed": 3, "steps": 3, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
TABULATED = ("transformer_blocks.1.norm1.linear", "single_transformer_blocks.0.norm.linear", "norm_out.linear")


def sampled(
    host: Host,
    name: str = BUILTIN.name,
    *,
    text: str = "a red star moves up",
    guidance: float | None = None,
    lora: str | None = None,
    plain: bool = False,
    offload: bool = False,
    **sampler: Any,
) -> Tensor:
    """Latents of a few steps; `plain` keeps nothing, `offload` lets the host take all layers off the device."""
    graph = Graph()
    model = graph.add("FramePackLoadModel", model_name=name, weight_dtype="fp32")
    if lora:
        model = graph.add("FramePackLoraLoader", model=model, lora_name=lora, strength=1.0)
    if plain or offload:
        model = graph.add("StandInModel", model=model, plain=plain, offload=offload)
    clip = graph.add("LoadFramePackTextEncoder", text_encoder_name="framepack_shapes_text.safetensors")
    said = graph.add("CLIPTextEncode", clip=clip, text=text)
    if guidance is not None:
        said = graph.add("FluxGuidance", conditioning=said, guidance=guidance)
    unsaid = graph.add("CLIPTextEncode", clip=clip, text="a blue square")
    latent = graph.add("EmptyHunyuanLatentVideo", width=64, height=64, length=33, batch_size=1)
    samples = graph.add(
        "KSampler", model=model, positive=said, negative=unsaid, latent_image=latent, **(SAMPLER | sampler)
    )
    graph.add("SaveLatent", samples=samples, filename_prefix="constants")
    graph.queue(host)
    return newest_latents(host, "constants")


CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"text": "a green ring turns"},
    {"steps": 4},
    {"cfg": 3.0},
    {"sampler_name": "dpm_2"},  # asks for levels between those of the run
    {"scheduler": "beta", "cfg": 2.0},
    {"guidance": 3.0},
    {"offload": True},
    {"offload": True, "cfg": 2.0},
    {},
)
DISTINCT = 6  # the first so many must give other latents, the others as the model has it


def test_whatever_changes_from_queue_to_queue_the_tables_change_nothing(host: Host):
    got = [sampled(host, **change) for change in CHANGES]
    expected = [sampled(host, plain=True, **change) for change in CHANGES]
    for change, ours, plain in zip(CHANGES, got, expected, strict=True):
        assert relative(ours, plain) < 1e-4, change
    for i, one in enumerate(expected[:DISTINCT]):
        assert all(relative(one, other) > 1e-3 for other in expected[:i])


@pytest.mark.parametrize("offload", [False, True], ids=["on the device", "offloaded"])
def test_a_lora_on_tabulated_layers_equals_merging_by_hand(
    host: Host,
    folder: Path,
    loras: Path,
    weights,
    metadata,
    offload: bool,
):
    torch.manual_seed(2)
    changed, factors = {k: v.float() for k, v in weights.items()}, {}
    for layer in TABULATED:
        out, inner = weights[f"{layer}.weight"].shape
        down, up = torch.randn(4, inner) * 0.2, torch.randn(out, 4) * 0.2
        factors |= {f"transformer.{layer}.lora_A.weight": down, f"transformer.{layer}.lora_B.weight": up}
        changed[f"{layer}.weight"] = changed[f"{layer}.weight"] + up @ down
    save_file(changed, folder / "modulated.safetensors", metadata)
    save_file(factors, loras / "modulated.safetensors")
    before = sampled(host, offload=offload)
    ours = sampled(host, lora="modulated.safetensors", offload=offload)
    by_hand = sampled(host, "modulated.safetensors")
    after = sampled(host, offload=offload, seed=4)
    assert relative(ours, by_hand) < 1e-4
    assert relative(before, by_hand) > 1e-2
    assert relative(after, sampled(host, plain=True, seed=4)) < 1e-4


def test_a_saved_model_holds_the_lora_on_tabulated_layers(host: Host, folder: Path, loras: Path, weights):
    layer = TABULATED[0]
    out, inner = weights[f"{layer}.weight"].shape
    down, up = torch.randn(2, inner), torch.randn(out, 2)
    save_file({f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}, loras / "saved.safetensors")
    graph = Graph()
    model = graph.add("FramePackLoadModel", model_name=BUILTIN.name, weight_dtype="fp32")
    model = graph.add("FramePackLoraLoader", model=model, lora_name="saved.safetensors", strength=1.0)
    graph.add("ModelSave", model=model, filename_prefix="saved")
    graph.queue(host)
    (file,) = files_of(host, "saved", ".safetensors")[-1:]
    found = load_file(file)
    (key,) = [k for k in found if k.endswith(f"{layer}.weight")]
    expected = weights[f"{layer}.weight"].float() + up @ down
    assert relative(found[key].float(), expected) < 1e-2


def test_the_host_neither_loads_nor_counts_what_is_tabulated(host: Host, weights):
    before = len(host.log_text())
    sampled(host, seed=9, lora=None)
    graph = Graph()
    model = graph.add("FramePackLoadModel", model_name=BUILTIN.name, weight_dtype="fp32")
    said = graph.add("StandInResident", model=model)[0]
    counted, parameters = map(int, graph.queue(host).outputs[said]["text"])
    total = sum(v.numel() for v in weights.values()) * 4
    aside = sum(
        v.numel() * 4
        for k, v in weights.items()
        if re.match(r"((single_)?transformer_blocks\.\d+\.norm\d?(_context)?|norm_out)\.linear", k)
    )
    assert parameters == total - aside
    assert counted - parameters < 1e4  # the host's own tables of noise levels
    assert aside > 1e6
    assert "not the model's" not in host.log_text()[before:]
