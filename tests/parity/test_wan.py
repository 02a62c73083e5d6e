"""Our Wan 2.1 without history against diffusers' transformer: the same weights give the same velocity."""

from __future__ import annotations

import random

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch import nn

from framepack.models.wan import WAN_1_3B, WAN_14B, WAN_14B_I2V, WanDiT, WanSpec
from framepack.models.wan.names import WAN
from tests.parity.test_hunyuan import relative

NUM_WORDS = 512  # diffusers takes the last 512 tokens for words where an image comes before them


@pytest.mark.parametrize("seed", range(12))
@torch.no_grad()
def test_the_same_weights_give_the_same_velocity(seed: int):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    heads, head_dim, image = rng.choice([1, 2, 3]), rng.choice([12, 16, 32, 26]), seed % 2 == 1
    theirs = WanTransformer3DModel(
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        in_channels=36 if image else 16,
        out_channels=16,
        text_dim=24,
        ffn_dim=rng.choice([40, 96]),
        num_layers=rng.choice([1, 2, 3]),
        image_dim=20 if image else None,
        added_kv_proj_dim=heads * head_dim if image else None,
    ).eval()
    for parameter in theirs.parameters():  # no layer starts at zero, so that every one of them counts
        nn.init.normal_(parameter, std=0.2)
    weights = theirs.state_dict()
    added = {f"clean_x_embedder.proj.{part}": weights[f"patch_embedding.{part}"] for part in ("weight", "bias")}
    shapes = {k: tuple(v.shape) for k, v in (weights | added).items()}
    ours = WanDiT(WanSpec.from_shapes(shapes, {"framepack.spec": f'{{"head_dim": {head_dim}}}'})).eval()
    ours.load_state_dict(weights | added)
    b, height, width = 1 + seed % 2, 2 * rng.randint(1, 5), 2 * rng.randint(1, 5)
    x = torch.randn(b, 36 if image else 16, rng.randint(1, 9), height, width)
    text, timestep = torch.randn(b, NUM_WORDS if image else rng.randint(1, 9), 24), torch.rand(b) * 1000
    seen = torch.randn(b, 5, 20) if image else None
    expected = theirs(x, timestep, text, seen, return_dict=False)[0]
    got = ours(x, timestep, text, image=seen)
    assert got.shape == expected.shape
    assert relative(got, expected) < 1e-5


@pytest.mark.parametrize(
    ("spec", "billions"), [(WAN_1_3B, 1.42), (WAN_14B, 14.29), (WAN_14B_I2V, 16.4)], ids=["1.3B", "14B", "14B image"]
)
def test_the_released_sizes_have_the_same_tensors(spec: WanSpec, billions: float):
    with torch.device("meta"):
        theirs = WanTransformer3DModel(
            num_attention_heads=spec.heads,
            attention_head_dim=spec.head_dim,
            in_channels=spec.in_channels,
            ffn_dim=spec.ffn_dim,
            num_layers=spec.blocks,
            image_dim=spec.image_dim,
            added_kv_proj_dim=spec.width if spec.image_dim else None,
        )
        ours = WanDiT(spec)
    expected = {k: tuple(v.shape) for k, v in theirs.state_dict().items()}
    got = {k: tuple(v.shape) for k, v in ours.state_dict().items() if not k.startswith("clean_x_embedder.")}
    assert got == expected
    assert sum(v.numel() for v in theirs.parameters()) / 1e9 == pytest.approx(billions, rel=0.01)


def test_the_original_names_are_those_that_diffusers_converts():
    """A few that are easily confused: the original's norm3 stands before the cross-attention."""
    assert WAN.tensor("blocks.7.norm3.weight").names == ("blocks.7.norm2.weight",)
    assert WAN.tensor("blocks.7.modulation").names == ("blocks.7.scale_shift_table",)
    assert WAN.tensor("blocks.7.cross_attn.k_img.bias").names == ("blocks.7.attn2.add_k_proj.bias",)
    assert WAN.tensor("head.modulation").names == ("scale_shift_table",)
