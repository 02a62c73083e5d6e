"""Rotation by tables, in real numbers."""

from __future__ import annotations

import pytest
import torch

from framepack.nn.rope import Rope, rotate, unturned

pytestmark = pytest.mark.numeric
ROPE = Rope(axes=(4, 6, 6))


def as_complex(x: torch.Tensor, phases: torch.Tensor) -> torch.Tensor:
    """x ``b l n e`` turned as complex numbers, in float64."""
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
    turn = torch.complex(phases[:, :, 0, 0::2].double(), phases[:, :, 1, 1::2].double())
    return torch.view_as_real(pairs * turn[:, :, None]).flatten(-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_pairs_turn_as_complex_numbers_do(dtype: torch.dtype):
    x, phases = torch.randn(2, 7, 3, 16).to(dtype), ROPE.grid(torch.arange(7), 1, 1)
    got = rotate(x, phases)
    assert got.dtype == dtype
    assert torch.allclose(got, as_complex(x, phases).to(dtype), atol=2 * torch.finfo(dtype).eps * float(x.abs().max()))


def test_a_turn_keeps_lengths_and_is_undone_by_the_opposite_one():
    x = torch.randn(1, 5, 2, 16)
    there, back = (ROPE.grid(sign * torch.arange(5), 1, 1) for sign in (1, -1))
    assert torch.allclose(rotate(x, there).norm(dim=-1), x.norm(dim=-1), atol=1e-5)
    assert torch.allclose(rotate(rotate(x, there), back), x, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_tokens_without_a_place_keep_their_values(dtype: torch.dtype):
    x = torch.randn(1, 4, 2, 16).to(dtype)
    assert torch.equal(rotate(x, unturned(4, ROPE.grid(torch.arange(3), 1, 1))), x)


def test_the_gradient_of_a_turn_is_the_opposite_turn():
    x, weight = torch.randn(1, 5, 2, 16, requires_grad=True), torch.randn(1, 5, 2, 16)
    (rotate(x, ROPE.grid(torch.arange(5), 1, 1)) * weight).sum().backward()
    assert torch.allclose(x.grad, rotate(weight, ROPE.grid(-torch.arange(5), 1, 1)), atol=1e-6)
