"""Our Helios against diffusers' transformer: the same weights and history give the same velocity."""

from __future__ import annotations

import random

import pytest
import torch
from diffusers import HeliosTransformer3DModel
from torch import Tensor, nn

from framepack.models.helios import HELIOS_14B, HeliosDiT, HeliosSpec
from framepack.packing.history import ContextGroup
from framepack.units import Kernel
from tests.parity.test_hunyuan import relative

GROUPS = {"long": (4, range(1, 17)), "mid": (2, range(17, 19)), "short": (1, (0, 19))}


def ours_of(theirs: HeliosTransformer3DModel, metadata: str) -> HeliosDiT:
    """Our model with their weights."""
    weights = theirs.state_dict()
    shapes = {key: tuple(value.shape) for key, value in weights.items()}
    ours = HeliosDiT(HeliosSpec.from_shapes(shapes, {"framepack.spec": metadata})).eval()
    ours.load_state_dict(weights)
    return ours


def packed(latents: dict[str, Tensor]) -> tuple[list[ContextGroup], dict[str, Tensor]]:
    """The same history for our forward and for theirs."""
    groups, arguments = [], {}
    for name, x in latents.items():
        k, positions = GROUPS[name]
        groups.append(ContextGroup(kernel=Kernel.short(k), latents=x, positions=tuple(positions)))
        arguments[f"latents_history_{name}"] = x
        arguments[f"indices_latents_history_{name}"] = torch.tensor(positions)[None].expand(len(x), -1)
    return groups, arguments


@pytest.mark.parametrize("seed", range(20))
@torch.no_grad()
def test_the_same_weights_give_the_same_velocity(seed: int):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    heads, head_dim = rng.choice([1, 2, 3]), rng.choice([12, 16, 32, 26])
    scales = [None, "per_head", "scalar"][seed % 3]
    clean, to_section = bool(seed % 4), bool(seed % 5)
    theirs = HeliosTransformer3DModel(
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        text_dim=24,
        ffn_dim=rng.choice([40, 96]),
        num_layers=rng.choice([1, 2, 3]),
        rope_dim=HeliosSpec(heads=1, head_dim=head_dim, ffn_dim=1, blocks=1).rope.axes,
        zero_history_timestep=clean,
        guidance_cross_attn=to_section,
        is_amplify_history=scales is not None,
        history_scale_mode=scales or "per_head",
    ).eval()
    for parameter in theirs.parameters():  # no layer starts at zero, so that every one of them counts
        nn.init.normal_(parameter, std=0.2)
    stated = f'{{"head_dim": {head_dim}, "clean_history": {clean}, "text_to_section": {to_section}}}'.lower()
    ours = ours_of(theirs, stated)

    b, height, width = 1 + seed % 2, 2 * rng.randint(1, 5), 2 * rng.randint(1, 5)
    names = list(GROUPS) if seed % 7 else [[], ["short"], ["mid", "short"]][rng.randrange(3)]
    history = {name: torch.randn(b, 16, len(GROUPS[name][1]), height, width) for name in names}
    size = (height, width) if seed % 6 else (2 * -(-height // 4), 2 * -(-width // 4))  # in a pyramid, half
    x, text, timestep = torch.randn(b, 16, rng.randint(1, 9), *size), torch.randn(b, 7, 24), torch.rand(b) * 1000
    positions = range(20, 20 + x.shape[2])
    groups, arguments = packed(history)
    indices = torch.tensor(positions)[None].expand(b, -1)
    expected = theirs(x, timestep, text, indices_hidden_states=indices, return_dict=False, **arguments)[0]
    got = ours(x, timestep, text, positions=positions, history=groups)
    assert got.shape == expected.shape
    assert relative(got, expected) < 1e-5


def test_the_released_size_has_the_same_tensors():
    with torch.device("meta"):
        theirs, ours = HeliosTransformer3DModel(), HeliosDiT(HELIOS_14B)
    expected = {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    assert {key: tuple(value.shape) for key, value in ours.state_dict().items()} == expected
