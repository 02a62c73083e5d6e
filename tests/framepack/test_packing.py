"""The packed embedding: tokens and phases for every kernel, size and position."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from framepack.errors import CheckpointError
from framepack.nn.layers import Factory
from framepack.nn.rope import Rope, rotate
from framepack.packing.embedding import PackedEmbedding, phases_of, tokens_of
from framepack.packing.history import ContextGroup
from framepack.packing.kernels import interpolated, route
from framepack.planning.video import make_plan
from framepack.schedule.grammar import parse
from framepack.units import BASE, Geometry, Kernel
from tests.names import TABLE_1

pytestmark = pytest.mark.numeric

K1, K2, K4, K8 = (Kernel.short(k) for k in (1, 2, 4, 8))
ROPE = Rope(axes=(4, 6, 6))
KERNELS = st.sampled_from(
    [K1, K2, K4, K8, Kernel(1, 4, 4), Kernel(2, 2, 2), Kernel(16, 2, 2), Kernel(16, 32, 32), Kernel(3, 6, 2)]
)


def embedding(kernels=(K1, K2, K4)) -> PackedEmbedding:
    torch.manual_seed(0)
    out = PackedEmbedding(Factory(), 2, 6, kernels)
    base = torch.nn.Conv3d(2, 6, (1, 2, 2), stride=(1, 2, 2))
    out.init_from(base)
    return out.requires_grad_(False)


EMBEDDING = embedding()


@settings(max_examples=150, deadline=None)
@given(KERNELS, st.integers(1, 20), st.integers(1, 8), st.integers(1, 8), st.sampled_from([None, "ta", "tc"]))
def test_tokens_and_phases_are_as_many_as_the_plan_counts(kernel, num, height, width, tail):
    latents = torch.randn(1, 2, num, 2 * height, 2 * width)
    group = ContextGroup(kernel=kernel, latents=latents, positions=tuple(range(num)), tail=tail)
    assert tokens_of(group, EMBEDDING.layers).shape == (1, group.num_tokens(), 6)
    assert phases_of(ROPE, group).shape == (1, group.num_tokens(), 2, 16)


@pytest.mark.parametrize("patch", [1, 2, 3])
@pytest.mark.parametrize("name", TABLE_1)
def test_a_backbone_of_any_patch_makes_the_tokens_that_a_plan_counts(name: str, patch: int):
    geometry = Geometry(spatial=16, patch=patch, channels=32)
    embedding = PackedEmbedding(Factory(), 32, 6, (K1, K2), geometry=geometry).requires_grad_(False)
    for context in make_plan(parse(name), num_lat_frames=40).sections[-1].context:
        latents = torch.zeros(1, 32, len(context.frames), 3 * patch, 5 * patch)
        group = ContextGroup(
            kernel=context.kernel, latents=latents, positions=tuple(context.positions), tail=context.tail
        )
        num = context.num_tokens(3 * patch, 5 * patch, patch)
        assert tokens_of(group, embedding.layers, geometry).shape[1] == phases_of(ROPE, group, patch).shape[1] == num


@pytest.mark.parametrize("name", TABLE_1)
def test_a_plan_counts_what_the_module_makes(name: str):
    for section in make_plan(parse(name), num_lat_frames=60).sections[-2:]:
        made = 0
        for c in section.context:
            latents = torch.zeros(1, 2, len(c.frames), 6, 10)
            group = ContextGroup(kernel=c.kernel, latents=latents, positions=c.positions, tail=c.tail)
            made += tokens_of(group, EMBEDDING.layers).shape[1]
        assert made == section.num_context_tokens(6, 10)


@settings(max_examples=60, deadline=None)
@given(KERNELS, st.integers(1, 9))
def test_on_a_constant_video_every_kernel_gives_the_bases_tokens(kernel: Kernel, num: int):
    constant = torch.randn(1, 2, 1, 1, 1).expand(1, 2, num, 8, 12)
    base = tokens_of(ContextGroup(kernel=BASE, latents=constant, positions=tuple(range(num))), EMBEDDING.layers)
    packed = tokens_of(ContextGroup(kernel=kernel, latents=constant, positions=tuple(range(num))), EMBEDDING.layers)
    assert torch.allclose(packed, base[:, :1].expand_as(packed), atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-5000, 100_000), min_size=1, max_size=12), st.integers(1, 5), st.integers(1, 5))
def test_phases_of_k1_are_the_base_rope_at_any_positions(positions, height, width):
    """RoPE with random access (section 3.1): each phase follows from its own place alone."""
    latents = torch.zeros(1, 2, len(positions), 2 * height, 2 * width)
    phases = phases_of(ROPE, ContextGroup(kernel=BASE, latents=latents, positions=tuple(positions)))
    for i, place in enumerate(positions):
        rows = slice(i * height * width, (i + 1) * height * width)
        assert torch.allclose(phases[:, rows], ROPE.grid(torch.tensor([place]), height, width), atol=1e-5)


def test_phases_are_pooled_over_the_kernel_with_the_last_repeated():
    positions = (7, 8, 9)
    latents = torch.zeros(1, 2, 3, 6, 10)  # 3 x 5 tokens of k1
    phases = phases_of(ROPE, ContextGroup(kernel=K2, latents=latents, positions=positions))
    full = ROPE.grid(torch.tensor([7, 8, 9, 9]), 3, 5).view(4, 3, 5, 32)
    full = torch.cat([full, full[:, -1:]], 1)
    full = torch.cat([full, full[:, :, -1:]], 2)
    pooled = full.view(2, 2, 2, 2, 3, 2, 32).mean((1, 3, 5)).view(1, -1, 2, 16)
    assert torch.allclose(phases, pooled, atol=1e-6)


def test_a_shift_of_all_positions_leaves_every_score():
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    rope = Rope(axes=(4, 2, 2))

    def score(at: int, to: int) -> float:
        turned = [rotate(x, rope.grid(torch.tensor([place]), 1, 1)) for x, place in ((q, at), (k, to))]
        return float((turned[0] * turned[1]).sum())

    assert score(3, 10) == pytest.approx(score(1003, 1010), abs=1e-4)


def test_a_kernel_goes_through_the_largest_layer_that_divides_it():
    assert route(K8, (K1, K2, K4)) == (K4, (2, 2, 2))
    assert route(Kernel(16, 32, 32), (K1, K2, K4, K8)) == (K8, (2, 2, 2))
    assert route(Kernel(1, 4, 4), (K1, K2, K4)) == (K1, (1, 2, 2))
    with pytest.raises(CheckpointError):
        route(K1, (K2,))


def test_an_interpolated_layer_is_the_base_repeated_and_divided():
    weight = torch.randn(5, 2, 1, 2, 2)
    assert torch.equal(
        interpolated(weight, K2), weight.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4) / 8
    )
    assert interpolated(weight, K4).shape == (5, 2, 4, 8, 8)
