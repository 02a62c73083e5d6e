"""A FramePack model's file is understood by its header: scales of every spelling, formats, and what is broken."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from framepack.checkpoints.files import Checkpoint
from framepack.checkpoints.fp8 import from_rows
from framepack.checkpoints.model_file import ModelFile
from framepack.errors import CheckpointError
from tests.backbones import SMALL

LAYER = "transformer_blocks.1.attn.to_q"
WEIGHT = f"{LAYER}.weight"
Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return SMALL[0].model().state_dict()


METADATA = {"framepack.spec": json.dumps({"rope_axes": [4, 6, 6], "rope_theta": 256.0})}


def opened(folder: Path, weights: dict[str, Tensor], metadata: dict[str, str] | None = None) -> ModelFile:
    save_file(weights, folder / "model.safetensors", {**METADATA, **(metadata or {})})
    return ModelFile.open(folder / "model.safetensors")


def fp8(weights: dict[str, Tensor], name: str, shape: tuple[int, ...], marker: bool = False) -> dict[str, Tensor]:
    """One layer in float8 with its scales."""
    found = {**weights, WEIGHT: weights[WEIGHT].to(torch.float8_e4m3fn), f"{LAYER}.{name}": torch.rand(shape) + 0.5}
    return found | ({"scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)} if marker else {})


def text(value: object) -> Tensor:
    return torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)


@pytest.mark.parametrize("marker", [False, True])
@pytest.mark.parametrize("shape", [(), (1,), (32,), (32, 1)])
@pytest.mark.parametrize("name", ["scale_weight", "weight_scale", "scale_rows"])
def test_scales_of_every_spelling_belong_to_their_weight(tmp_path: Path, weights, name: str, shape, marker: bool):
    file = opened(tmp_path, fp8(weights, name, shape, marker) | {f"{LAYER}.scale_input": torch.ones(())})
    assert file.quantization.scales == {LAYER: f"{LAYER}.{name}"}
    assert f"{LAYER}.scale_input" in file.quantization.spare
    assert ("scaled_fp8" in file.quantization.spare) is marker
    assert file.unknown == ()


@pytest.mark.parametrize("shape", [(), (3,), (3, 1)])
def test_scales_of_every_shape_are_multiplied_with_their_rows(shape: tuple[int, ...]):
    weight, scales = torch.randn(3, 2).to(torch.float8_e5m2), torch.rand(shape) + 0.5
    wanted = weight.float() * (scales.view(-1, 1) if shape else scales)
    assert torch.equal(from_rows(weight, scales), wanted)


@pytest.mark.parametrize("stated_in", ["tensor", "metadata"])
def test_a_format_of_the_hosts_is_read_from_a_tensor_or_the_metadata(tmp_path: Path, weights, stated_in: str):
    changed, stated = fp8(weights, "weight_scale", ()), {"format": "float8_e4m3fn"}
    layers = {"_quantization_metadata": json.dumps({"layers": {f"model.diffusion_model.{LAYER}": stated}})}
    if stated_in == "tensor":
        file = opened(tmp_path, changed | {f"{LAYER}.comfy_quant": text(stated)})
    else:
        file = opened(tmp_path, changed, layers)
    assert file.quantization.formats == {LAYER: stated}
    assert file.quantization.scales == {}
    without = file.quantization.as_scales()
    assert (without.formats, without.scales) == ({}, {LAYER: f"{LAYER}.weight_scale"})


def test_two_values_to_a_byte_count_as_two_columns(tmp_path: Path, weights):
    halves = weights[WEIGHT][:, ::2].to(torch.uint8)
    changed = {**weights, WEIGHT: halves, f"{LAYER}.comfy_quant": text({"format": "nvfp4"})}
    assert opened(tmp_path, changed).quantization.names == {"nvfp4"}


@pytest.mark.parametrize(
    "name",
    [
        "weight.absmax",
        "weight.quant_map",
        "weight_scale_inv",
        "zero_point",
        "weight_zeros",
        "SCB_scale",
        "quant_state.data",
    ],
)
def test_an_unknown_scale_beside_narrow_weights_is_refused_by_name(tmp_path: Path, weights, name: str):
    changed = {**weights, WEIGHT: weights[WEIGHT].to(torch.float8_e4m3fn), f"{LAYER}.{name}": torch.ones(7)}
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: {LAYER}\.{name}"):
        opened(tmp_path, changed)


def test_an_unknown_tensor_that_changes_nothing_is_counted(tmp_path: Path, weights):
    assert opened(tmp_path, weights | {"step": torch.ones(1)}).unknown == ("step",)


BROKEN: dict[str, tuple[Change, str]] = {
    "a scalar weight": (lambda w: {**w, WEIGHT: torch.ones(())}, WEIGHT),
    "an empty weight": (lambda w: {**w, WEIGHT: torch.ones(0)}, WEIGHT),
    "a scalar patchify": (lambda w: {**w, "x_embedder.proj.weight": torch.ones(())}, "HunyuanVideo"),
    "an empty norm": (lambda w: {**w, "transformer_blocks.0.attn.norm_q.weight": torch.ones(0)}, "HunyuanVideo"),
    "int8": (lambda w: {**w, WEIGHT: w[WEIGHT].to(torch.int8)}, f"{WEIGHT} is I8"),
    "bool": (lambda w: {**w, WEIGHT: w[WEIGHT] > 0}, f"{WEIGHT} is BOOL"),
    "complex": (lambda w: {**w, WEIGHT: w[WEIGHT].to(torch.complex64)}, f"{WEIGHT} is C64"),
    "blocks of scales": (lambda w: fp8(w, "weight_scale", (4, 4)), r"weight_scale is \(4, 4\)"),
    "two scales": (lambda w: fp8(w, "weight_scale", ()) | {f"{LAYER}.scale_weight": torch.ones(())}, "has both"),
    "a format without a name": (lambda w: {**w, f"{LAYER}.comfy_quant": text({"format": 4})}, LAYER),
    "a format that is no JSON": (lambda w: {**w, f"{LAYER}.comfy_quant": torch.ones(3, dtype=torch.uint8)}, "comfy_q"),
    "a format without a weight": (lambda w: {**w, "gone.comfy_quant": text({"format": "nvfp4"})}, "gone"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_refused_by_name(tmp_path: Path, weights, kind: str):
    change, words = BROKEN[kind]
    with pytest.raises(CheckpointError, match=rf"model\.safetensors.*{words}"):
        opened(tmp_path, change(weights))


@pytest.mark.parametrize("key", ["framepack.spec", "_quantization_metadata"])
@pytest.mark.parametrize("value", ["", "no JSON", "[1]", "{}", '{"rope_axes": 3, "layers": 3}', "null"])
def test_odd_metadata_is_refused_by_name(tmp_path: Path, weights, key: str, value: str):
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        opened(tmp_path, weights, {key: value})


def test_a_text_in_a_tensor_is_metadata(tmp_path: Path, weights):
    """As the host's ModelSave writes it."""
    stated = torch.tensor(list(METADATA["framepack.spec"].encode()), dtype=torch.uint8)
    save_file(weights | {"framepack.spec": stated}, tmp_path / "saved.safetensors")
    file = ModelFile.open(tmp_path / "saved.safetensors")
    assert file.stated == METADATA
    assert file.spec == SMALL[0].spec
    assert "framepack.spec" not in file.checkpoint.tensors()


@pytest.mark.parametrize(
    "index", ["[]", "3", "{}", '{"weight_map": []}', '{"weight_map": {"a": 3}}', '{"weight_map": {"a": "../b"}}', "{"]
)
def test_an_index_that_is_none_is_refused_by_name(tmp_path: Path, index: str):
    (tmp_path / "m.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=r"m\.safetensors\.index\.json"):
        Checkpoint.open(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json"])
def test_a_pipe_in_place_of_a_file_is_refused_and_not_read(tmp_path: Path, name: str):
    os.mkfifo(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        Checkpoint.open(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"a text, no weights", "another kind of file"), (b"", "empty or cut short"), (None, "cut short")],
    ids=["text", "empty", "cut"],
)
def test_a_file_of_another_kind_is_named_in_plain_words(
    tmp_path: Path, weights: dict[str, Tensor], content: bytes | None, reason: str
):
    file = tmp_path / "model.safetensors"
    save_file(weights, file)
    file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    with pytest.raises(CheckpointError, match=reason) as caught:
        Checkpoint.open(file)
    assert "deserializing" not in str(caught.value)
