"""LoRA files of every naming come to the same tensors."""

from __future__ import annotations

import re

import pytest
import torch

from framepack.checkpoints.lora import match
from framepack.errors import CheckpointError
from framepack.models.hunyuan import HunyuanDiT
from framepack.models.hunyuan.names import HUNYUAN
from framepack.shapes.train_dit import small_spec

DIT = HunyuanDiT(small_spec(), device="meta")
MODULES = {k.removesuffix(".weight") for k in DIT.state_dict() if k.endswith(".weight")}
UP, DOWN = torch.randn(128, 4), torch.randn(4, 128)
LAYER = "transformer_blocks.1.attn.to_out.0"

SPELLINGS = {
    "bare": (f"{LAYER}.lora_B.weight", f"{LAYER}.lora_A.weight"),
    "transformer": (f"transformer.{LAYER}.lora_B.weight", f"transformer.{LAYER}.lora_A.weight"),
    "adapter": (f"base_model.model.{LAYER}.lora_B.default.weight", f"base_model.model.{LAYER}.lora_A.default.weight"),
    "diffusion_model": (f"diffusion_model.{LAYER}.lora_up.weight", f"diffusion_model.{LAYER}.lora_down.weight"),
    "kohya": tuple(f"lora_unet_{LAYER.replace('.', '_')}.lora_{d}.weight" for d in ("up", "down")),
    "musubi": tuple(f"lora_transformer_{LAYER.replace('.', '_')}.lora_{d}.weight" for d in ("up", "down")),
    "lycoris": tuple(f"lycoris_{LAYER.replace('.', '_')}.lora_{d}.weight" for d in ("up", "down")),
    "original": tuple(f"double_blocks.1.img_attn_proj.lora_{d}.weight" for d in ("B", "A")),
    "comfy": tuple(f"diffusion_model.double_blocks.1.img_attn.proj.lora_{d}.weight" for d in ("B", "A")),
    "kohya original": tuple(f"lora_unet_double_blocks_1_img_attn_proj.lora_{d}.weight" for d in ("up", "down")),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_naming_is_understood(spelling: str):
    up, down = SPELLINGS[spelling]
    found = match({up: UP, down: DOWN}, MODULES)
    assert found.unmatched == []
    assert found.modules == {LAYER}
    assert torch.equal(found.tensors[f"{LAYER}.lora_up.weight"], UP)
    assert torch.equal(found.tensors[f"{LAYER}.lora_down.weight"], DOWN)


@pytest.mark.parametrize("prefix", ["", "diffusion_model.", "lora_unet_", "transformer."])
def test_a_fused_matrix_is_split_by_rows_and_merges_to_the_same(prefix: str):
    names = ["double_blocks.0.txt_attn_qkv", "single_blocks.2.linear1"]
    if prefix == "lora_unet_":
        names = [name.replace(".", "_") for name in names]
    ups = [torch.randn(3 * 128, 4), torch.randn(7 * 128, 4)]
    tensors = {f"{prefix}{n}.lora_up.weight": up for n, up in zip(names, ups, strict=True)}
    tensors |= {f"{prefix}{n}.lora_down.weight": DOWN for n in names} | {
        f"{prefix}{n}.alpha": torch.tensor(2.0) for n in names
    }
    found = match(tensors, MODULES)
    assert found.unmatched == []
    block, single = "transformer_blocks.0.attn.", "single_transformer_blocks.2."
    layers = [f"{block}add_{x}_proj" for x in "qkv"], [*(f"{single}attn.to_{x}" for x in "qkv"), f"{single}proj_mlp"]
    for fused, parts in zip(ups, layers, strict=True):
        merged = torch.cat(
            [found.tensors[f"{p}.lora_up.weight"] @ found.tensors[f"{p}.lora_down.weight"] for p in parts]
        )
        assert torch.equal(merged, fused @ DOWN)
        assert all(found.tensors[f"{p}.alpha"] == 2 for p in parts)


def test_what_belongs_to_nothing_is_counted():
    found = match({"lora_te_text_model.lora_up.weight": UP, f"{LAYER}.lora_B.weight": UP, "step": UP}, MODULES)
    assert found.unmatched == ["lora_te_text_model.lora_up.weight", "step"]
    assert found.modules == {LAYER}


def test_a_fused_lora_of_another_width_is_refused():
    with pytest.raises(CheckpointError, match="multiple of 3"):
        match({"double_blocks.0.img_attn_qkv.lora_B.weight": torch.randn(100, 4)}, MODULES)


def test_a_lora_on_the_last_modulation_is_turned_to_our_order_of_halves():
    up = torch.arange(2 * 32.0).view(-1, 1)
    found = match({"final_layer.adaLN_modulation.1.lora_B.weight": up}, MODULES)
    assert torch.equal(found.tensors["norm_out.linear.lora_up.weight"], torch.cat([up[32:], up[:32]]))


def test_every_original_module_that_the_model_has_is_reached():
    reached = {name for pattern in HUNYUAN.layers for name in HUNYUAN.layer(pattern.replace("#", "0")).names}
    first = {m for m in MODULES if not re.search(r"blocks\.[1-9]", m)}
    assert first - reached == {*(f"clean_x_embedder.proj{n}" for n in ("", "_2x", "_4x", "_8x"))}
