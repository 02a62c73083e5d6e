"""A LoRA is validated whole before it is applied: pairs, ranks, sizes, values and alphas."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from framepack.checkpoints.lora_check import HEADER, Lora, check_lora
from framepack.checkpoints.model_file import shapes_of
from framepack.errors import CheckpointError
from framepack.shapes.train_dit import small_spec

SHAPES = shapes_of(small_spec())
LAYER, OTHER = "transformer_blocks.1.attn.to_q", "transformer_blocks.0.attn.to_k"
UP, DOWN = torch.randn(128, 4), torch.randn(4, 128)
PAIR = {f"{LAYER}.lora_B.weight": UP, f"{LAYER}.lora_A.weight": DOWN}
NAN = torch.full((4, 128), float("nan"))


def checked(tensors: dict[str, Tensor], header: object = None) -> Lora:
    return check_lora("it.safetensors", tensors, {HEADER: json.dumps(header)} if header else {}, SHAPES)


def test_a_pair_changes_its_layer():
    found = checked({**PAIR, "step": torch.ones(1)})
    assert (found.changed, found.zeros, found.unmatched) == ({LAYER}, frozenset(), ("step",))


@pytest.mark.parametrize("zero", ["A", "B"])
def test_a_pair_with_zeros_changes_nothing(zero: str):
    key = f"{LAYER}.lora_{zero}.weight"
    found = checked({**PAIR, key: torch.zeros_like(PAIR[key])})
    assert (found.changed, found.zeros) == (frozenset(), {LAYER})


REFUSED: dict[str, tuple[dict[str, Tensor], str]] = {
    "B alone": ({f"{LAYER}.lora_B.weight": UP}, LAYER),
    "A alone": ({f"{LAYER}.lora_A.weight": DOWN}, LAYER),
    "alpha alone": ({f"{LAYER}.alpha": torch.ones(())}, LAYER),
    "half of a second pair": ({**PAIR, f"{OTHER}.lora_B.weight": UP}, OTHER),
    "other ranks": ({**PAIR, f"{LAYER}.lora_A.weight": torch.randn(8, 128)}, "rank 8"),
    "other rows": ({**PAIR, f"{LAYER}.lora_B.weight": torch.randn(96, 4)}, "96 rows"),
    "other columns": ({**PAIR, f"{LAYER}.lora_A.weight": torch.randn(4, 96)}, "96 columns"),
    "a NaN": ({**PAIR, f"{LAYER}.lora_A.weight": NAN}, f"{LAYER}.lora_down.weight"),
    "an infinite value": ({**PAIR, f"{LAYER}.lora_B.weight": UP / 0}, f"{LAYER}.lora_up.weight"),
    "an alpha that is NaN": ({**PAIR, f"{LAYER}.alpha": NAN[0, 0]}, "alpha"),
    "two alphas": ({**PAIR, f"{LAYER}.alpha": torch.ones(2)}, "alpha"),
    "a vector for A": ({**PAIR, f"{LAYER}.lora_A.weight": torch.randn(128)}, "matrix"),
    "a scalar for B": ({**PAIR, f"{LAYER}.lora_B.weight": torch.ones(())}, "matrix"),
    "an empty A": ({**PAIR, f"{LAYER}.lora_A.weight": torch.ones(0, 128)}, "lora_down"),
    "integers": ({**PAIR, f"{LAYER}.lora_A.weight": torch.ones(4, 128, dtype=torch.int8)}, "int8"),
    "DoRA of PEFT": ({**PAIR, f"{LAYER}.lora_magnitude_vector": torch.ones(128)}, "lora_magnitude_vector"),
    "DoRA of PEFT with a name": ({**PAIR, f"{LAYER}.lora_magnitude_vector.default.weight": torch.ones(128)}, "magnit"),
    "half of LoHa": ({f"{LAYER}.hada_w1_a": UP, f"{LAYER}.hada_w1_b": DOWN}, "hada_w2_a"),
    "LoKr of another size": ({f"{LAYER}.lokr_w1": torch.eye(2), f"{LAYER}.lokr_w2": torch.eye(60)}, "120 rows"),
    "a difference of another size": ({f"{LAYER}.diff": torch.ones(4, 4)}, "diff"),
    "a fused scalar": ({"double_blocks.0.img_attn_qkv.lora_B.weight": torch.ones(())}, "qkv"),
    "one layer twice": ({**PAIR, f"transformer.{LAYER}.lora_up.weight": UP}, "two names"),
    "nothing of this model": ({"lora_te_layers_0.lora_up.weight": UP}, "none of its 1 tensors"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_lora_that_cannot_be_applied_whole_is_refused_by_name(kind: str):
    tensors, words = REFUSED[kind]
    with pytest.raises(CheckpointError, match=rf"it\.safetensors: .*{words}"):
        checked(tensors)


@pytest.mark.parametrize("prefix", ["transformer.", "diffusion_model.", ""])
def test_an_alpha_that_only_the_header_states_is_used(prefix: str):
    header = {f"{prefix}r": 4, f"{prefix}lora_alpha": 8, "text_encoder.lora_alpha": 3}
    assert checked(PAIR, header).tensors[f"{LAYER}.alpha"] == 8


def test_a_tensors_alpha_comes_before_the_headers():
    found = checked({**PAIR, f"{LAYER}.alpha": torch.tensor(2.0)}, {"r": 4, "lora_alpha": 8})
    assert found.tensors[f"{LAYER}.alpha"] == 2


@pytest.mark.parametrize("pattern", ["attn.to_q", LAYER, r"^transformer_blocks\.1\.attn\.to_q$"])
def test_a_pattern_states_the_alpha_of_its_layers(pattern: str):
    other = {f"{OTHER}.lora_B.weight": UP, f"{OTHER}.lora_A.weight": DOWN}
    header = {"r": 2, "lora_alpha": 8, "alpha_pattern": {pattern: 6}, "rank_pattern": {pattern: 4}}
    found = checked({**PAIR, **other}, header)
    assert found.tensors[f"{LAYER}.alpha"] == 6
    assert found.tensors[f"{OTHER}.alpha"] == 8


def test_rank_stabilized_loras_are_scaled_by_the_root_of_their_rank():
    assert checked(PAIR, {"lora_alpha": 8, "use_rslora": True}).tensors[f"{LAYER}.alpha"] == 16


@pytest.mark.parametrize(
    "header",
    [
        {"lora_alpha": "much"},
        {"lora_alpha": float("nan")},
        {"lora_alpha": 1, "alpha_pattern": {"(a+)+$": 1}},
        {"lora_alpha": 1, "alpha_pattern": [3]},
        [1],
    ],
)
def test_a_header_that_says_nonsense_is_refused_by_name(header: object):
    with pytest.raises(CheckpointError, match=r"it\.safetensors: "):
        checked(PAIR, header)


def test_a_lora_on_a_fused_matrix_takes_the_headers_alpha_in_every_layer():
    name = "Hunyuan_video_I2V_lora_double_blocks_0_img_attn_qkv"
    tensors = {f"{name}.lora_up.weight": torch.randn(384, 4), f"{name}.lora_down.weight": DOWN}
    found = checked(tensors, {"transformer.lora_alpha": 2})
    assert found.changed == {f"transformer_blocks.0.attn.to_{x}" for x in "qkv"}
    assert all(found.tensors[f"{layer}.alpha"] == 2 for layer in found.changed)
